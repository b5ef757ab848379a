// How long a step takes on one rank (the slowest), operation by operation. Pure, any thread.
//
// A step is the sum of its operations (op_cost.h, exchange_cost.h) over the layers of one pipeline
// stage, with what runs beside something else taken off again in a line of its own ("overlapped").
// Who is in which node follows from device.gpus_per_node.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layout/parallel_layout.h"
#include "plan/device.h"
#include "plan/imbalance.h"
#include "plan/model_shape.h"

namespace moebius::plan {

enum class Phase : uint8_t { kPrefill, kDecode };

struct StepInput {
  Phase phase = Phase::kDecode;
  int64_t requests_per_rank = 1;  // of a DP rank, in one turn of one pipeline stage
  int64_t context = 0;            // cached tokens a request, on average
  int64_t prompt_tokens = 0;      // prefill: new tokens a request
  Imbalance imbalance;
  double kv_element_bytes = 2;
  bool two_batch_overlap = false;
  // Tokens a request gains in a decode step (1: no speculation). Up to n + 1 mean n drafted ones:
  // n more MTP layers, and n + 1 rows a request.
  double mtp_tokens = 1;
  // The bare sum of the operations, as some publish it: nothing overlaps, and no time of the engine
  // ("gaps and waiting": between kernels, of the host, of ranks for the one with the longest
  // requests; fitted once to the published runs of published.h).
  bool plain_sum = false;
};

// What an operation belongs to, for sums and sentences.
enum class OpGroup : uint8_t {
  kAttention,   // over the cache: MLA or GQA, its absorbed products
  kDense,       // projections, dense and shared FFN, router, head
  kExperts,     // grouped products of the routed experts
  kCollective,  // whatever crosses a link: all-reduce, dispatch, combine, gather, stages
  kOther,       // norms, sampling, launches
};
const char* OpGroupName(OpGroup group);

struct OpTime {
  std::string name;  // "MLA", "experts", "dispatch", ...
  OpGroup group = OpGroup::kOther;
  double us = 0;      // of one step: all its layers; "overlapped" is below 0
  double flops = 0;   // likewise
  double bytes = 0;   // device memory, or link bytes for collectives
  int64_t count = 1;  // launches
  Basis basis = Basis::kRoofline;
};

struct StepTime {
  std::vector<OpTime> ops;
  double total_us = 0;
  double busiest_rank = 1;  // the imbalance that was applied to the experts
};

// One turn of the slowest pipeline stage (of the whole model without PP), with what it sends on.
// With PP stages a token passes PP turns; whoever has n groups of requests in flight needs n + PP -
// 1 turns for all of them (the bubble). layout.config.all2all_backend kAuto takes the cheaper
// exchange; two_batch_overlap needs an exchange and two requests.
StepTime EstimateStep(const ModelShape& model, const layout::ParallelLayout& layout,
                      const Device& device, const StepInput& input);

// Tokens of one DP rank in such a step, drafted ones included.
int64_t StepTokens(const StepInput& input);
// Time per output token of a request, ms.
double DecodeTpotMs(const StepTime& step, const StepInput& input);
// Prompt tokens a second per GPU.
double PrefillTokensPerSecPerGpu(const StepTime& step, const StepInput& input,
                                 const layout::ParallelLayout& layout);

}  // namespace moebius::plan
