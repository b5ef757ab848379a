#include "plan/own_ranks.h"

#include <algorithm>

#include "base/math.h"
#include "comm/shared_communicator.h"
#include "kernels/ops.h"
#include "model/shard.h"
#include "moe/exchange/protocol.h"

namespace moebius::plan {
namespace {

constexpr double kIndexBytes = 4;  // of a token, a slot, a place

// What own ranks make of the sizes.
struct OwnSizes {
  OwnSizes(const ModelShape& model, const layout::ParallelLayout& layout, const MemoryInput& input)
      : numbers(model.numbers),
        config(layout.config),
        group(config.expert_group()),
        ep(layout.expert_parallel_size > 1),
        cut(layout.expert_tensor_parallel_size > 1),
        act(input.activation_bytes > 0 ? input.activation_bytes
                                       : (model.weight_bytes >= 4 ? 4.0 : 2.0)),
        deterministic(input.deterministic),
        rows(std::max<int64_t>(1, input.max_batched_tokens)) {
    if (numbers.num_experts == 0) return;
    model::MoeConfig moe;
    moe.top_k = numbers.top_k;
    model::Shard shard;
    shard.experts.size = group;
    shard.max_moe_rows = input.max_moe_rows;
    most_chunk = model::MostMoeRows(moe, shard);
    chunk = std::min(most_chunk, CeilDiv(rows, int64_t{config.tensor_parallel_size}));
    slots = CeilDiv(numbers.num_experts + config.num_redundant_experts, int64_t{ep ? group : 1});
  }

  const layout::ModelNumbers& numbers;
  const layout::ParallelConfig& config;
  const int group;
  const bool ep;
  const bool cut;
  const double act;  // bytes
  const bool deterministic;
  const int64_t rows;
  int64_t most_chunk = 1;
  int64_t chunk = 1;  // rows of one rank in a chunk of a MoE layer
  int64_t slots = 0;  // of a rank
};

// The widest row that a collective carries, as model::WidestRowBytes.
size_t ChunkBytes(const ModelShape& model) {
  constexpr size_t kLeast = size_t{256} << 10;
  const layout::ModelNumbers& n = model.numbers;
  const int64_t widest =
      std::max({n.vocab_size, n.hidden_size, n.dense_intermediate_size, n.expert_intermediate_size,
                n.shared_intermediate_size, n.num_heads * model.v_head_dim});
  return std::max(kLeast, static_cast<size_t>(widest) * sizeof(float));
}

// A row's projections and all heads' results.
double AttentionRow(const ModelShape& model, const OwnSizes& sizes) {
  const layout::ModelNumbers& n = sizes.numbers;
  const int tp = sizes.config.tensor_parallel_size;
  const auto heads = static_cast<double>(CeilDiv(n.num_heads, int64_t{tp}));
  const double all = static_cast<double>(n.num_heads * model.v_head_dim);
  if (!n.mla) {
    const auto kv = static_cast<double>(std::max<int64_t>(1, n.num_kv_heads / tp));
    return ((heads + 2 * kv) * static_cast<double>(model.head_dim) + all) * sizes.act;
  }
  const auto latent = static_cast<double>(model.kv_lora_rank + model.qk_rope_head_dim);
  // Queries, absorbed ones, results among the latents.
  const double of_head =
      static_cast<double>(model.qk_nope_head_dim + model.qk_rope_head_dim + model.kv_lora_rank) +
      latent;
  return (static_cast<double>(model.q_lora_rank) + latent + heads * of_head + all) * sizes.act;
}

// Of one chunk of a MoE layer, as model::ReserveMoe takes it.
double MoeChunk(const OwnSizes& sizes) {
  const layout::ModelNumbers& n = sizes.numbers;
  const auto k = static_cast<double>(n.top_k);
  const auto hidden = static_cast<double>(n.hidden_size);
  const auto own = static_cast<double>(sizes.chunk);
  const double all = own * (sizes.cut ? sizes.group : 1);
  const double routed =
      own * (sizes.cut ? sizes.config.tensor_parallel_size : 1) *
      (static_cast<double>(n.num_experts) * sizeof(float) + k * (2 * kIndexBytes + sizeof(float)));
  const double gathered = sizes.cut ? all * (2 * hidden * sizes.act + 2 * k * kIndexBytes) : 0;
  const double places =
      sizes.ep ? own * sizes.group * static_cast<double>(std::min(n.top_k, sizes.slots)) : all * k;
  const double pairs = sizes.ep ? own * k * (3 + sizes.group) : all * k * 2;
  const bool gathers =
      sizes.ep && sizes.config.all2all_backend == layout::ExchangeBackend::kAllGatherReduceScatter;
  const double of_group = own * sizes.group;  // rows of all, and what came of them
  const double kept = sizes.deterministic ? (of_group + own) * k : of_group;
  const double exchanged =
      gathers ? (of_group + kept) * hidden * sizes.act + 5 * of_group * k * kIndexBytes
              : (places + pairs) * kIndexBytes;
  const double width = sizes.cut ? hidden / sizes.group : hidden;
  const auto inner = static_cast<double>(n.expert_intermediate_size);
  double bytes = routed + gathered + exchanged + places * (inner + width) * sizes.act;
  if (n.shared_intermediate_size > 0) {
    bytes += all * (width + static_cast<double>(n.shared_intermediate_size)) * sizes.act;
  }
  return bytes;
}

// What kernels take inside of one operation.
double KernelScratch(const ModelShape& model, int64_t num_slots, int num_threads) {
  const layout::ModelNumbers& n = model.numbers;
  kernels::OpLimits limits;
  limits.num_threads = num_threads;
  limits.num_slots = std::max(num_slots, n.num_experts);
  limits.head_dim = n.mla ? model.kv_lora_rank + model.qk_rope_head_dim : model.head_dim;
  limits.v_head_dim = n.mla ? model.kv_lora_rank : model.head_dim;
  limits.vocab = n.vocab_size;
  return static_cast<double>(kernels::OpWorkspaceBytes(limits));
}

}  // namespace

ExchangeMemory OwnRanksExchange(const ModelShape& model, const layout::ParallelLayout& layout,
                                const MemoryInput& input) {
  const OwnSizes sizes(model, layout, input);
  ExchangeMemory memory;
  memory.chunk_tokens = sizes.chunk;
  memory.chunks = CeilDiv(CeilDiv(sizes.rows, int64_t{sizes.config.tensor_parallel_size}),
                          std::max<int64_t>(1, sizes.chunk));
  if (sizes.config.all2all_backend == layout::ExchangeBackend::kAllGatherReduceScatter) {
    memory.regions =
        static_cast<double>(comm::SharedCommunicator::NumBytes(sizes.group, ChunkBytes(model))) /
        sizes.group;
    return memory;
  }
  const moe::ExchangeShape shape = {.num_ranks = sizes.group,
                                    .num_slots = sizes.slots * sizes.group,
                                    .max_tokens = sizes.chunk,
                                    .top_k = sizes.numbers.top_k,
                                    .hidden = sizes.numbers.hidden_size,
                                    .act = sizes.act >= 4 ? DType::kF32 : DType::kBF16,
                                    .deterministic = input.deterministic};
  memory.regions = static_cast<double>(moe::LayOutExchange(shape).bytes);
  return memory;
}

double OwnRanksCommunicators(const ModelShape& model, const layout::ParallelLayout& layout,
                             const MemoryInput& input) {
  const OwnSizes sizes(model, layout, input);
  const size_t chunk = ChunkBytes(model);
  const auto share = [&](int ranks, int letters = comm::SharedCommunicator::kNumLetters) {
    if (ranks <= 1) return 0.0;
    return static_cast<double>(comm::SharedCommunicator::NumBytes(ranks, chunk, letters)) / ranks;
  };
  double bytes = share(sizes.config.tensor_parallel_size);
  if (sizes.cut) bytes += share(sizes.group);
  // Two steps' rows may lie between two stages.
  const auto stage = static_cast<size_t>(sizes.rows * sizes.numbers.hidden_size) * sizeof(float);
  const int letters = 2 * std::max(1, static_cast<int>((stage + chunk - 1) / chunk));
  return bytes + share(sizes.config.pipeline_parallel_size, letters);
}

double OwnRanksWorkspace(const ModelShape& model, const layout::ParallelLayout& layout,
                         const MemoryInput& input) {
  const OwnSizes sizes(model, layout, input);
  const layout::ModelNumbers& n = sizes.numbers;
  const auto rows = static_cast<double>(sizes.rows);
  const auto hidden = static_cast<double>(n.hidden_size);
  const double stream = rows * hidden * (sizeof(float) + 2 * sizes.act);
  const double attention = rows * AttentionRow(model, sizes);
  const double mlp = rows * static_cast<double>(n.dense_intermediate_size) * sizes.act;
  const double moe = n.num_experts > 0 ? MoeChunk(sizes) : 0;
  const double head = rows * hidden * (sizeof(float) + 2 * sizes.act);
  // As many rows of logits as requests, at least those that make the head worth reading.
  constexpr int64_t kLeastLogitRows = 32;
  const auto logit_rows =
      static_cast<double>(std::max(input.max_decode_tokens, std::min(sizes.rows, kLeastLogitRows)));
  const double logits = logit_rows * static_cast<double>(n.vocab_size) * sizeof(float);
  return stream + std::max({attention, mlp, moe, head}) + logits +
         KernelScratch(model, sizes.slots * sizes.group, input.num_threads);
}

}  // namespace moebius::plan
