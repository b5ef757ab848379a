#include "model/shard.h"

#include <algorithm>

#include "base/math.h"

namespace moebius::model {
namespace {

// (token, choice) pairs that all ranks' rows of a chunk may have: enough rows for each expert that
// the products stream well.
constexpr int64_t kMaxPairs = 16384;

Status CheckPlace(const char* name, const GroupPlace& place) {
  if (place.size >= 1 && place.rank >= 0 && place.rank < place.size) return {};
  return MakeError(ErrorCode::kInvalidArgument, "{} rank is {} of {}, expected 0 to its size - 1",
                   name, place.rank, place.size);
}

Status CheckHeads(const AttentionConfig& attention, int tp) {
  if (attention.num_heads % tp != 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} attention heads cannot be shared by {} tensor parallel ranks, expected a "
                     "multiple",
                     attention.num_heads, tp);
  }
  const int64_t kv_heads = attention.num_kv_heads;
  if (attention.kind == AttentionKind::kMla || kv_heads % tp == 0 || tp % kv_heads == 0) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "{} KV heads cannot be shared by {} tensor parallel ranks, expected a multiple "
                   "or a divisor",
                   kv_heads, tp);
}

Status CheckSlots(const MoeConfig& moe, const Shard& shard) {
  const moe::SlotAssignment& slots = shard.slots;
  if (slots.num_slots != 0 && (shard.cut_experts || slots.num_slots < moe.num_experts)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} slots for {} experts{}, expected at least one each, and whole experts",
                     slots.num_slots, moe.num_experts, shard.cut_experts ? " that are cut" : "");
  }
  const int64_t num_places =
      CeilDiv(std::max(slots.num_slots, moe.num_experts), shard.experts.size) * shard.experts.size;
  for (size_t layer = 0; layer < slots.layers.size(); ++layer) {
    if (std::ssize(slots.layers[layer]) != num_places) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "MoE layer {} has experts for {} slots, expected {}", layer,
                       slots.layers[layer].size(), num_places);
    }
    auto placement = moe::Placement::Create(static_cast<int>(moe.num_experts), slots.layers[layer]);
    if (!placement) {
      return tl::unexpected(placement.error().WithContext(fmt::format("MoE layer {}", layer)));
    }
  }
  return {};
}

Status CheckExperts(const MoeConfig& moe, const Shard& shard) {
  if (shard.experts.size % shard.tp.size != 0 ||
      shard.experts.rank % shard.tp.size != shard.tp.rank) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "rank {} of {} that share experts is tensor parallel rank {} of {}, expected "
                     "whole TP groups one after the other",
                     shard.experts.rank, shard.experts.size, shard.tp.rank, shard.tp.size);
  }
  if (!shard.cut_experts && shard.experts.size > moe.num_experts) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} experts on {} expert parallel ranks, expected at least one a rank",
                     moe.num_experts, shard.experts.size);
  }
  return CheckSlots(moe, shard);
}

Status CheckStage(const ModelConfig& config, const Shard& shard) {
  const bool whole = shard.first_layer == 0 && shard.end_layer == config.num_layers;
  if (shard.first_layer < 0 || shard.first_layer >= shard.end_layer ||
      shard.end_layer > config.num_layers || (shard.first_layer == 0) != shard.is_first_stage() ||
      (shard.end_layer == config.num_layers) != shard.is_last_stage()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "pipeline stage {} of {} has layers {} to {} of {}, expected at least one, "
                     "the first ones on the first stage and the last ones on the last",
                     shard.pipeline.rank, shard.pipeline.size, shard.first_layer,
                     shard.end_layer - 1, config.num_layers);
  }
  if (!whole && config.num_mtp_layers > 0) {
    return MakeError(ErrorCode::kUnsupported,
                     "the MTP layer needs the embedding and the last layer on one rank, expected "
                     "no pipeline stages with it");
  }
  return {};
}

}  // namespace

Result<Shard> CheckShard(const ModelConfig& config, Shard shard) {
  if (shard.end_layer < 0) shard.end_layer = config.num_layers;
  MOEBIUS_TRY(CheckPlace("tensor parallel", shard.tp));
  MOEBIUS_TRY(CheckPlace("expert", shard.experts));
  MOEBIUS_TRY(CheckPlace("pipeline", shard.pipeline));
  MOEBIUS_TRY(CheckHeads(config.attention, shard.tp.size));
  if (config.moe.num_experts > 0) MOEBIUS_TRY(CheckExperts(config.moe, shard));
  MOEBIUS_TRY(CheckStage(config, shard));
  return shard;
}

Status CheckPeers(const ModelConfig& config, const Shard& shard) {
  const bool moe = config.moe.num_experts > 0 && shard.experts.size > 1;
  const auto missing = [](const GroupPlace& place) {
    return place.size > 1 && place.comm == nullptr;
  };
  const char* what = missing(shard.tp)                                    ? "tensor parallel"
                     : missing(shard.pipeline)                            ? "pipeline"
                     : moe && shard.cut_experts && missing(shard.experts) ? "expert"
                                                                          : nullptr;
  if (what != nullptr) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "no communicator for the {} group, expected one of more than one rank", what);
  }
  if (moe && !shard.cut_experts && shard.exchange == nullptr) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "no exchange between {} ranks that share experts, expected one",
                     shard.experts.size);
  }
  return {};
}

size_t WidestRowBytes(const ModelConfig& config) {
  const AttentionConfig& a = config.attention;
  const int64_t head = a.kind == AttentionKind::kMla ? a.v_head_dim : a.head_dim;
  return sizeof(float) * static_cast<size_t>(std::max(
                             {config.vocab_size, config.hidden_size, config.intermediate_size,
                              config.moe.intermediate_size, config.moe.shared_intermediate_size,
                              config.moe.top_k, a.num_heads * head}));
}

int64_t MostMoeRows(const MoeConfig& moe, const Shard& shard) {
  if (shard.max_moe_rows > 0) return shard.max_moe_rows;
  return std::max<int64_t>(1, kMaxPairs / moe.top_k / shard.experts.size);
}

moe::ExchangeShape ShapeOfExchange(const ModelConfig& config, DType act, const Shard& shard,
                                   int64_t max_rows, bool deterministic) {
  const int64_t of_rank = (max_rows + shard.tp.size - 1) / shard.tp.size;
  const int64_t num_slots = std::max(shard.slots.num_slots, config.moe.num_experts);
  return {.num_ranks = shard.experts.size,
          .num_slots = CeilDiv(num_slots, shard.experts.size) * shard.experts.size,
          .max_tokens = std::max<int64_t>(1, std::min(of_rank, MostMoeRows(config.moe, shard))),
          .top_k = config.moe.top_k,
          .hidden = config.hidden_size,
          .act = act,
          .deterministic = deterministic};
}

Split SplitOver(const GroupPlace& group, int64_t columns, int64_t unit) {
  return {.group = group, .begin = comm::SplitEvenly(columns, group.size, unit)};
}

bool CanSum(const Split& cut, int64_t unit) {
  for (size_t r = 0; r + 1 < cut.begin.size(); ++r) {
    const int64_t count = cut.begin[r + 1] - cut.begin[r];
    if (count == 0 || count % unit != 0) return false;
  }
  return cut.group.size > 1;
}

SplitPair PairOf(const Split& cut, const Split& outer, bool sums) {
  if (!sums) return {.cut = cut, .inner = cut, .outer = outer};
  return {.cut = cut,
          .sums = true,
          .inner = {.group = {}, .begin = {0, cut.count()}},
          .outer = {.group = {}, .begin = {0, outer.columns()}, .adds = cut.group.comm}};
}

}  // namespace moebius::model
