// How long a step takes on one rank (the slowest), operation by operation. Pure, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "layout/parallel_layout.h"
#include "plan/device.h"
#include "plan/model_shape.h"

namespace moebius::plan {

enum class Phase : uint8_t { kPrefill, kDecode };

// How unevenly the router loads experts: shares of the load by expert, from Zipf's exponent or from
// recorded counts; empty: uniform.
struct Imbalance {
  double zipf = 0;
  std::vector<int64_t> counts;  // by expert, of one layer; replaces zipf
  bool balanced = false;        // EPLB: replicas and placement by the greedy planner
};

// Load of the busiest rank over the mean (1 = balanced), and of slots, for `tokens` tokens in all.
double BusiestRank(const Imbalance& imbalance, const layout::ParallelLayout& layout, int64_t num_experts,
                   int64_t top_k, int64_t tokens);

struct StepInput {
  Phase phase = Phase::kDecode;
  int64_t requests_per_rank = 1;    // DP rank: decode: tokens of the step
  int64_t context = 0;              // cached tokens a request, on average
  int64_t prompt_tokens = 0;        // prefill: new tokens a request
  Imbalance imbalance;
  double kv_element_bytes = 2;
  bool two_batch_overlap = false;
  double mtp_tokens = 1;            // accepted tokens a step (1: no speculation)
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
  std::string name;    // "MLA", "experts", "dispatch", ...
  OpGroup group = OpGroup::kOther;
  double us = 0;       // of one step: all its layers
  double flops = 0;    // likewise
  double bytes = 0;    // device memory, or link bytes for collectives
  int64_t count = 1;   // launches
  Basis basis = Basis::kRoofline;
};

struct StepTime {
  std::vector<OpTime> ops;
  double total_us = 0;
  double busiest_rank = 1;  // the imbalance that was applied to the experts
};
StepTime EstimateStep(const ModelShape& model, const layout::ParallelLayout& layout,
                      const Device& device, const StepInput& input);

}  // namespace moebius::plan
