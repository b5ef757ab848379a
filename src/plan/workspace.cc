#include "plan/workspace.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"
#include "plan/own_ranks.h"

namespace moebius::plan {
namespace {

using layout::ExchangeBackend;
using layout::ExchangeKernel;
using layout::Part;

constexpr double kGiB = static_cast<double>(int64_t{1} << 30);

// fp8 rows travel where the weights are fp8; their scales are 4 bytes a 128.
double DispatchRowBytes(const ModelShape& model) {
  const auto hidden = static_cast<double>(model.numbers.hidden_size);
  return model.numbers.fp8_block > 0 ? hidden + hidden / 32 : 2 * hidden;
}

// Input, gate and up, output of one row grouped by slot.
double GroupedRowBytes(const ModelShape& model, int slices) {
  const auto width = static_cast<double>(model.numbers.expert_intermediate_size) / slices;
  return DispatchRowBytes(model) + 2 * width * 2 +
         static_cast<double>(model.numbers.hidden_size) * 2;
}

ExchangeMemory OwnExchange(const ModelShape& model, const layout::ParallelLayout& layout,
                           int64_t decode_tokens, int64_t batched_tokens) {
  const auto ranks = static_cast<double>(layout.expert_parallel_size);
  const int64_t slots = layout.slots_per_rank.front();
  const auto rows_a_token = ranks * static_cast<double>(std::min(model.numbers.top_k, slots));
  const double grouped = rows_a_token * GroupedRowBytes(model, 1);
  const auto within_budget = static_cast<int64_t>(kGroupedBudget / grouped);
  ExchangeMemory memory;
  memory.chunk_tokens = std::min(batched_tokens, std::max(decode_tokens, within_budget));
  memory.chunks = CeilDiv(batched_tokens, memory.chunk_tokens);
  const auto tokens = static_cast<double>(memory.chunk_tokens);
  // A row's metadata: its token, and (slot, ordinal, weight) for each of its slots there.
  const double metadata = 4 + 12 * static_cast<double>(std::min(model.numbers.top_k, slots));
  const double home_row = 2 * static_cast<double>(model.numbers.hidden_size);
  const double sets = layout.config.enable_dbo ? 2 : 1;
  memory.regions = sets * ranks *
                   (tokens * (DispatchRowBytes(model) + metadata + home_row) +
                    static_cast<double>(slots) * 4 + 16);
  memory.grouped = tokens * grouped;
  return memory;
}

}  // namespace

double LowLatencyBufferBytes(int64_t num_slots, int64_t max_tokens, int64_t hidden_size) {
  const auto hidden = static_cast<double>(hidden_size);
  return 4.0 * static_cast<double>(num_slots) * static_cast<double>(max_tokens) *
         (2 * hidden + hidden / 32);
}

ExchangeMemory PlanExchangeMemory(const ModelShape& model, const layout::ParallelLayout& layout,
                                  const MemoryInput& input) {
  if (!layout.exchanges) return {};
  if (layout.config.own_ranks) return OwnRanksExchange(model, layout, input);
  // Cut tokens: each TP rank sends its share.
  const int64_t share = layout.token_cutting ? layout.config.tensor_parallel_size : 1;
  const int64_t decode = CeilDiv(std::max<int64_t>(1, input.max_decode_tokens), share);
  const int64_t batched =
      std::max(decode, CeilDiv(std::max<int64_t>(1, input.max_batched_tokens), share));
  ExchangeMemory memory;
  memory.chunk_tokens = batched;
  memory.chunks = 1;
  if (layout.config.all2all_backend == ExchangeBackend::kAllGatherReduceScatter) {
    const double rows =
        static_cast<double>(layout.expert_parallel_size) * static_cast<double>(batched);
    memory.regions =
        rows * (DispatchRowBytes(model) + 2 * static_cast<double>(model.numbers.hidden_size) +
                8 * static_cast<double>(model.numbers.top_k));
    return memory;
  }
  switch (layout.config.exchange_kernel) {
    case ExchangeKernel::kOwn:
    case ExchangeKernel::kRemoved:
      return OwnExchange(model, layout, decode, batched);
    case ExchangeKernel::kDeepEpLowLatency:
    case ExchangeKernel::kNixl: {
      const int64_t slots = model.numbers.num_experts + layout.config.num_redundant_experts;
      memory.regions = LowLatencyBufferBytes(slots, decode, model.numbers.hidden_size);
      memory.chunk_tokens = decode;
      memory.chunks = CeilDiv(batched, decode);
      return memory;
    }
    case ExchangeKernel::kDeepEpHighThroughput:
    case ExchangeKernel::kOther:
      memory.regions = layout.config.num_nodes() > 1 ? 2 * kGiB : kGiB;
      return memory;
  }
  return memory;
}

double ActivationBytes(const ModelShape& model, const layout::ParallelLayout& layout,
                       const MemoryInput& input) {
  const layout::ModelNumbers& numbers = model.numbers;
  const layout::ParallelConfig& config = layout.config;
  if (config.own_ranks) return OwnRanksWorkspace(model, layout, input);
  const auto tokens = static_cast<double>(input.max_batched_tokens);
  const auto decode = static_cast<double>(input.max_decode_tokens);
  const auto hidden = static_cast<double>(numbers.hidden_size);
  const double tp = config.tensor_parallel_size;

  // Residual, normed, gathered and summed rows.
  double bytes = tokens * hidden * 2 * 4;
  // Queries and attention's output of this rank's heads, or gate, up and their product.
  const auto head = static_cast<double>(numbers.mla ? model.qk_nope_head_dim +
                                                          model.qk_rope_head_dim + model.v_head_dim
                                                    : model.head_dim + model.v_head_dim);
  const double attention = static_cast<double>(numbers.num_heads) / tp * head * 2;
  const double ffn = 3 * 2 * static_cast<double>(numbers.dense_intermediate_size) /
                     layout.part(Part::kDenseFfn).ways;
  bytes += tokens * std::max(attention, ffn);
  if (numbers.num_experts > 0 && !layout.exchanges) {
    // Every rank of the DP groups has the tokens of all: the rows of its own slots, or all of them.
    const auto slots = layout.slots_per_rank.front();
    const double rows = tokens * (layout.expert_parallel_size > 1 ? 1 : config.data_parallel_size) *
                        static_cast<double>(std::min(numbers.top_k, slots));
    bytes +=
        std::min(kGroupedBudget, rows * GroupedRowBytes(model, layout.expert_tensor_parallel_size));
  }
  bytes += decode * static_cast<double>(numbers.vocab_size) * 4 *
           (1 + 1.0 / layout.part(Part::kLmHead).ways);
  const int communicators = (config.tensor_parallel_size > 1) +
                            (numbers.num_experts > 0 && config.data_parallel_size > 1) +
                            (config.pipeline_parallel_size > 1);
  return bytes + input.runtime_bytes + input.communicator_bytes * communicators;
}

}  // namespace moebius::plan
