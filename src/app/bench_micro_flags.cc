// The flags of `moebius bench kernels` and `moebius bench exchange`.
#include <CLI/CLI.hpp>

#include "app/bench_micro.h"
#include "app/flag_kinds.h"

namespace moebius::app {
namespace {

void AddDeviceAndJson(CLI::App* app, std::string& device, std::string& json) {
  AddChoice(app, "--device", device, {"cpu", "cuda"}, "What is measured");
  AddText(app, "--json", json, "Write each row to this file, too: a JSON object a line");
}

}  // namespace

void AddBenchKernelsFlags(CLI::App* app, BenchKernelsOptions& options) {
  AddDeviceAndJson(app, options.device, options.json);
  AddEach(app, "--part",
          "Only this group, may be given several times. CPU: decode, prefill, attention, sample, "
          "small; GPU: gemm, few, mla, mla-prefill, gqa, rows; gemm-tiles, mla-all (only if "
          "asked for)",
          [&options](const std::string& text) -> Status {
            options.bench.parts.push_back(text);
            return {};
          });
  AddFlag(app, "--cpu-time", "One thread, in the time that it really ran: for a busy machine",
          [&options](bool on) { options.bench.cpu_time = on; });
  AddFlag(app, "--once", "GPUs: one launch of each, checked, for profilers; its time says little",
          [&options](bool on) { options.bench.once = on; });
}

void AddBenchExchangeFlags(CLI::App* app, BenchExchangeOptions& options) {
  AddDeviceAndJson(app, options.device, options.json);
  AddNumber(app, "--ranks", options.bench.num_ranks,
            "Of CPUs: 2, 4 or 8 (default: 2, then 8); of GPUs: 2, 4 or 8 (all)", 1, 64);
  AddNumber(app, "--hidden", options.bench.hidden, "Elements of a row (a GPU's: 7168)", int64_t{64},
            int64_t{1} << 16);
  AddFlag(app, "--share-gpus", "All ranks (2) on one GPU: checks, without figures that count",
          [&options](bool on) { options.bench.share_gpus = on; });
  AddFlag(app, "--once",
          "GPUs: each half of dispatch and combine alone, one time, checked, for profilers: none "
          "waits for another, so a profiler may repeat it",
          [&options](bool on) { options.bench.once = on; });
}

}  // namespace moebius::app
