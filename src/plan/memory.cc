#include "plan/memory.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "plan/own_ranks.h"
#include "plan/workspace.h"

namespace moebius::plan {
namespace {

using layout::Part;

// The layers of one pipeline stage by kind.
struct Stage {
  int64_t layers = 0;
  int64_t moe = 0;
  int64_t dense = 0;
  int64_t windowed = 0;
  bool first = false;
  bool last = false;
};

Stage StageOf(const ModelShape& model, int num_stages, int idx) {
  const layout::StageLayers range =
      layout::LayersOfStage(model.numbers.num_layers, num_stages, idx);
  Stage stage;
  stage.first = idx == 0;
  stage.last = idx == num_stages - 1;
  for (int64_t layer = range.begin; layer < range.end; ++layer) {
    const auto at = static_cast<size_t>(layer);
    ++stage.layers;
    ++(model.moe_layers[at] ? stage.moe : stage.dense);
    if (model.windowed_layers[at]) ++stage.windowed;
  }
  return stage;
}

double Ways(const layout::ParallelLayout& layout, Part part) { return layout.part(part).ways; }

// Of one layer on one rank: heads are cut, MLA's way into the latent is copied, and so is a KV head
// that several ranks need.
double AttentionBytes(const ModelShape& model, int tp) {
  const double copied = static_cast<double>(model.AttentionCopiedParams());
  const double kv = static_cast<double>(model.KvProjectionParams());
  const double cut = static_cast<double>(model.AttentionParams()) - copied - kv;
  const double kv_share =
      model.numbers.num_kv_heads > 0
          ? std::max(1.0 / tp, 1.0 / static_cast<double>(model.numbers.num_kv_heads))
          : 1.0;
  return (cut / tp + copied + kv * kv_share) * model.weight_bytes;
}

void AddExperts(const ModelShape& model, const layout::ParallelLayout& layout, const Stage& stage,
                const MemoryInput& input, MemoryUse& use) {
  if (model.numbers.num_experts == 0) return;
  const double expert = static_cast<double>(model.ExpertParams()) * model.expert_weight_bytes;
  const double layers = static_cast<double>(stage.moe);
  const auto experts = static_cast<double>(model.numbers.num_experts);
  if (layout.expert_parallel_size == 1) {
    use.routed_experts = layers * experts * expert / layout.expert_tensor_parallel_size;
  } else {
    const auto slots = static_cast<double>(layout.slots_per_rank.front());
    const double own = std::ceil(experts / layout.expert_parallel_size);
    use.routed_experts = layers * own * expert;
    use.redundant_slots = layers * (slots - own) * expert;
    if (layout.config.holds_own_slots()) {
      use.redundant_slots += stage.moe > 0 ? input.num_staging_slots * expert : 0;
    } else if (layout.config.enable_eplb) {
      const double all_slots = experts + layout.config.num_redundant_experts;
      use.redundant_slots += slots * expert + kLoadWindow * layers * all_slots * 4;
    }
  }
  use.shared_experts = layers * static_cast<double>(model.SharedParams()) * model.weight_bytes /
                       Ways(layout, Part::kSharedExperts);
}

void AddWeights(const ModelShape& model, const layout::ParallelLayout& layout, const Stage& stage,
                const MemoryInput& input, MemoryUse& use) {
  const auto hidden = static_cast<double>(model.numbers.hidden_size);
  const auto embedding = static_cast<double>(model.EmbeddingParams()) * model.other_bytes;
  use.attention =
      static_cast<double>(stage.layers) * AttentionBytes(model, layout.config.tensor_parallel_size);
  use.dense_ffn = static_cast<double>(stage.dense * model.DenseFfnParams()) * model.weight_bytes /
                  Ways(layout, Part::kDenseFfn);
  AddExperts(model, layout, stage, input, use);
  if (stage.first) use.embedding_and_head += embedding / Ways(layout, Part::kEmbedding);
  // A tied head is the embedding where both are on one stage; own ranks pack it besides.
  const bool is_one = model.tie_embeddings && stage.first && !layout.config.own_ranks;
  if (stage.last && !is_one) {
    use.embedding_and_head += embedding / Ways(layout, Part::kLmHead);
  }
  use.router_and_norms = (static_cast<double>(stage.moe * model.RouterParams()) +
                          static_cast<double>(2 * stage.layers + 1) * hidden) *
                         model.other_bytes;
}

// Of one token on this rank, all layers of the stage.
double KvBytesPerToken(const ModelShape& model, const layout::ParallelLayout& layout,
                       const Stage& stage, const MemoryInput& input) {
  double kept = 1;
  if (input.context > 0 && model.window > 0) {
    kept = std::min(1.0, static_cast<double>(model.window) / static_cast<double>(input.context));
  }
  const double layers = static_cast<double>(stage.layers - stage.windowed) +
                        static_cast<double>(stage.windowed) * kept;
  return layers *
         model.KvBytesPerTokenLayer(layout.config.tensor_parallel_size, input.kv_element_bytes) /
         layout.config.decode_context_parallel_size;
}

}  // namespace

double MemoryUse::weights() const {
  return attention + dense_ffn + routed_experts + redundant_slots + shared_experts +
         embedding_and_head + router_and_norms;
}

double MemoryUse::total_without_kv() const { return weights() + exchange_buffers + activations; }

MemoryUse PlanMemory(const ModelShape& model, const layout::ParallelLayout& layout,
                     const MemoryInput& input) {
  const ExchangeMemory exchange = PlanExchangeMemory(model, layout, input);
  const double activations = ActivationBytes(model, layout, input);
  MemoryUse fullest;
  double fewest = std::numeric_limits<double>::infinity();
  const int num_stages = layout.config.pipeline_parallel_size;
  for (int idx = 0; idx < num_stages; ++idx) {
    const Stage stage = StageOf(model, num_stages, idx);
    MemoryUse use;
    AddWeights(model, layout, stage, input, use);
    use.exchange_buffers = stage.moe > 0 ? exchange.bytes() : 0;
    if (layout.config.own_ranks) {
      use.exchange_buffers += OwnRanksCommunicators(model, layout, input);
    }
    use.activations = activations;
    use.kv_budget = input.hbm_bytes * input.utilization - use.total_without_kv();
    use.kv_bytes_per_token = KvBytesPerToken(model, layout, stage, input);
    const double tokens = use.kv_budget / use.kv_bytes_per_token;
    if (tokens < fewest) {
      fewest = tokens;
      fullest = use;
    }
  }
  fullest.kv_tokens_per_rank = std::max<int64_t>(0, static_cast<int64_t>(std::floor(fewest)));
  fullest.distinct_kv_tokens = fullest.kv_tokens_per_rank * layout.config.data_parallel_size;
  fullest.kv_copies = layout.part(Part::kKvCache).copies;
  return fullest;
}

}  // namespace moebius::plan
