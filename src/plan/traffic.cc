// Bytes that one GPU sends in a layer, by the closed forms of the collectives.
#include <algorithm>

#include "plan/memory.h"

namespace moebius::plan {
namespace {

constexpr double kBf16 = 2;

double AllReduceBytes(int ranks, double tokens, double hidden) {
  return 2.0 * (ranks - 1) / ranks * tokens * hidden * kBf16;
}

}  // namespace

double RemoteCopies(int64_t num_experts, int64_t top_k, int expert_parallel_size) {
  if (expert_parallel_size <= 1 || num_experts <= 0) return 0;
  double visited = 0;  // expected distinct ranks, the own one included
  for (const int64_t held : layout::ExpertsPerRank(num_experts, expert_parallel_size)) {
    double none = 1;  // C(E - held, k) / C(E, k)
    for (int64_t i = 0; i < top_k; ++i) {
      none *= std::max(0.0, static_cast<double>(num_experts - held - i)) /
              static_cast<double>(num_experts - i);
    }
    visited += 1 - none;
  }
  return visited * (expert_parallel_size - 1) / expert_parallel_size;
}

double Traffic::per_layer() const {
  return attention_all_reduce + moe_dispatch + moe_combine + moe_all_reduce + token_gather;
}

Traffic PlanTraffic(const ModelShape& model, const layout::ParallelLayout& layout,
                    int64_t tokens_per_rank, double dispatch_element_bytes) {
  const layout::ParallelConfig& config = layout.config;
  const int tp = config.tensor_parallel_size;
  const int dp = config.data_parallel_size;
  const auto hidden = static_cast<double>(model.numbers.hidden_size);
  const auto tokens = static_cast<double>(tokens_per_rank);
  Traffic traffic;
  // Own ranks gather heads, then columns: what one all-reduce moves where both are as wide.
  traffic.attention_all_reduce = AllReduceBytes(tp, tokens, hidden);
  if (config.pipeline_parallel_size > 1) traffic.pipeline = tokens * hidden * kBf16;

  if (layout.exchanges) {
    const double sent = layout.token_cutting ? tokens / tp : tokens;
    double copies = layout.expert_parallel_size - 1;
    if (config.all2all_backend != layout::ExchangeBackend::kAllGatherReduceScatter) {
      copies =
          RemoteCopies(model.numbers.num_experts, model.numbers.top_k, layout.expert_parallel_size);
      traffic.remote_copies = copies;
    }
    traffic.moe_dispatch = copies * sent * hidden * dispatch_element_bytes;
    traffic.moe_combine = copies * sent * hidden * kBf16;
    if (layout.token_cutting) traffic.token_gather = (tp - 1) * sent * hidden * kBf16;
    return traffic;
  }
  if (config.own_ranks && model.numbers.num_experts > 0 && config.expert_group() > 1) {
    // Each brings its share of the rows to all, then its columns of all rows' hidden rows and
    // results.
    const double group = config.expert_group();
    const double others = group - 1;
    const double inner =
        static_cast<double>(model.numbers.top_k * model.numbers.expert_intermediate_size) +
        static_cast<double>(model.numbers.shared_intermediate_size);
    traffic.moe_dispatch = others * tokens / tp * hidden * kBf16;
    traffic.moe_combine = others * (tokens * dp) * (inner + hidden) / group * kBf16;
    return traffic;
  }
  if (model.numbers.num_experts > 0 && dp > 1) {
    // Gathered over the DP ranks, each expert a slice on every rank, scattered back.
    traffic.moe_dispatch = (dp - 1) * tokens * hidden * dispatch_element_bytes;
    traffic.moe_combine = (dp - 1) * tokens * hidden * kBf16;
  }
  traffic.moe_all_reduce = AllReduceBytes(tp, tokens, hidden);
  return traffic;
}

}  // namespace moebius::plan
