// `moebius bench kernels` and `moebius bench exchange`: parts of the engine measured alone, on CPUs
// or GPUs, each row beside what the machine could do at most, its result checked in the same run.
// Tables go to standard output; `json`, where it is not null, gets a JSON object a line, a row
// each. Called from the main thread, which is then this machine's only user if figures shall count.
//
// All return whether every result that was checked was right. kInvalidArgument names the flag.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::bench {

struct KernelBenchOptions {
  std::vector<std::string> parts;  // empty: all but those that are only for who asks
  bool cpu_time = false;  // one thread, in the time that it really runs: for a busy machine
  bool once = false;      // GPUs: one launch of each, for profilers
};
// Operations of the best back end of this CPU (MOEBIUS_ISA names another) beside the rate at which
// memory streams. Parts: decode prefill attention sample small.
Result<bool> BenchKernels(const KernelBenchOptions& options, std::FILE* json);
// Of a GPU, beside its copy rate and peers' figures. Parts: gemm few mla mla-prefill gqa rows;
// gemm-tiles (every tile of gemm), mla-all (every batch and context). Rows of `rows` are not
// checked.
Result<bool> BenchDeviceKernels(const KernelBenchOptions& options, std::FILE* json);

struct ExchangeBenchOptions {
  int num_ranks = 0;      // 0: 2, then 8; between GPUs: one a GPU
  int64_t hidden = 4096;  // elements of a row; between GPUs 7168
  bool share_gpus = false;
  bool once = false;  // GPUs: each half alone, one time, for profilers
};
// What ranks of one machine move together, each a thread: collectives, dispatch and combine, beside
// plain copies by as many threads. Rates by the clock, and by the CPU time of all ranks: the
// latter, and the share of plain copies, hold on a busy machine too.
Result<bool> BenchExchange(const ExchangeBenchOptions& options, std::FILE* json);
// Between GPUs beside the link's rate and peers' figures.
Result<bool> BenchDeviceExchange(const ExchangeBenchOptions& options, std::FILE* json);

// kInvalidArgument lists `known`: a part is none of them.
Status CheckParts(const std::vector<std::string>& parts, const std::vector<std::string>& known);

}  // namespace moebius::bench
