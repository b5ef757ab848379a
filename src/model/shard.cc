#include "model/shard.h"

#include <algorithm>

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
  return {};
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
  const auto num_slots = LinearSlots(config.moe.num_experts, shard.experts.size).size();
  return {.num_ranks = shard.experts.size,
          .num_slots = static_cast<int64_t>(num_slots),
          .max_tokens = std::max<int64_t>(1, std::min(of_rank, MostMoeRows(config.moe, shard))),
          .top_k = config.moe.top_k,
          .hidden = config.hidden_size,
          .act = act,
          .deterministic = deterministic};
}

std::vector<int32_t> LinearSlots(int64_t num_experts, int num_ranks) {
  const int64_t slots_a_rank = (num_experts + num_ranks - 1) / num_ranks;
  std::vector<int32_t> slots;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const RowRange mine = PieceOf(num_experts, num_ranks, rank);
    for (int64_t i = 0; i < slots_a_rank; ++i) {
      slots.push_back(i < mine.count ? static_cast<int32_t>(mine.begin + i) : -1);
    }
  }
  return slots;
}

Split SplitOver(const GroupPlace& group, int64_t columns, int64_t unit) {
  return {group, comm::SplitEvenly(columns, group.size, unit)};
}

}  // namespace moebius::model
