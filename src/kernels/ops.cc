#include "kernels/ops.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/op_checks.h"

namespace moebius::kernels {
namespace {

// The weights of a grouped operation: one shape and format; a slot without rows may be empty.
int64_t CheckSlotWeights(const ExecContext& ctx, std::span<const PackedWeight> weights,
                         std::span<const int32_t> offsets, int64_t k, bool gated) {
  CheckLength(offsets, static_cast<int64_t>(weights.size()) + 1);
  const std::span<const int32_t> readable = Readable(ctx, offsets);
  if (!readable.empty()) MOEBIUS_CHECK_EQ(readable[0], 0);
  int64_t n = -1;
  WeightFormat format = WeightFormat::kF32;
  for (size_t s = 0; s < weights.size(); ++s) {
    if (!readable.empty()) MOEBIUS_CHECK_LE(readable[s], readable[s + 1]);
    if (weights[s].data == nullptr) {
      if (!readable.empty()) MOEBIUS_CHECK_EQ(readable[s], readable[s + 1]);
      continue;
    }
    CheckWeight(weights[s], k, gated);
    if (n < 0) {
      n = weights[s].n;
      format = weights[s].format;
    }
    MOEBIUS_CHECK_EQ(weights[s].n, n);
    MOEBIUS_CHECK(weights[s].format == format);
  }
  return n;
}

// Rows of a grouped product; of a device as many as may come.
int64_t NumPlaces(const ExecContext& ctx, std::span<const int32_t> offsets, int64_t most) {
  return ctx.backend->on_host ? offsets.back() : most;
}

void CheckBatch(const ExecContext& ctx, const AttentionBatch& batch, int64_t num_rows,
                int64_t cache_rows) {
  if (!ctx.backend->on_host) {
    MOEBIUS_CHECK(batch.staged != nullptr);
    return;
  }
  const int64_t num_seqs = batch.num_seqs();
  CheckLength(batch.query_start, num_seqs + 1);
  MOEBIUS_CHECK_EQ(batch.query_start[0], 0);
  MOEBIUS_CHECK_EQ(batch.query_start[num_seqs], num_rows);
  MOEBIUS_CHECK_GT(batch.block_size, 0);
  MOEBIUS_CHECK_GE(static_cast<int64_t>(batch.block_table.size()), num_seqs * batch.max_blocks);
  for (int64_t s = 0; s < num_seqs; ++s) {
    const int64_t context = batch.context_len[s];
    MOEBIUS_CHECK_GE(context, batch.query_start[s + 1] - batch.query_start[s]);
    MOEBIUS_CHECK_LE(batch.query_start[s], batch.query_start[s + 1]);
    const int64_t num_blocks = (context + batch.block_size - 1) / batch.block_size;
    MOEBIUS_CHECK_LE(num_blocks, batch.max_blocks);
    for (int64_t b = 0; b < num_blocks; ++b) {
      const int64_t block = batch.block_table[s * batch.max_blocks + b];
      MOEBIUS_CHECK_GE(block, 0);
      MOEBIUS_CHECK_LE((block + 1) * batch.block_size, cache_rows);
    }
  }
}

}  // namespace

void Embed(ExecContext& ctx, const EmbedArgs& args) {
  CheckAct(args.out, static_cast<int64_t>(args.tokens.size()), args.table.cols);
  CheckMat(args.table, args.table.rows, args.out.cols);
  MOEBIUS_CHECK(IsAct(args.table.dtype) || args.table.dtype == DType::kF16);
  for (const TokenId token : Readable(ctx, args.tokens)) {
    MOEBIUS_CHECK_GE(token, 0);
    MOEBIUS_CHECK_LT(token, args.table.rows);
  }
  if (args.out.rows > 0) ctx.backend->embed(ctx, args);
}

void RmsNorm(ExecContext& ctx, const RmsNormArgs& args) {
  CheckNorm(args);
  if (args.out.rows > 0 && args.out.cols > 0) ctx.backend->rms_norm(ctx, args);
}

void Add(ExecContext& ctx, const AddArgs& args) {
  CheckF32(args.x, args.y.rows, args.y.cols);
  CheckAct(args.y, args.x.rows, args.x.cols);
  if (args.x.rows > 0) ctx.backend->add(ctx, args);
}

void CopyRows(ExecContext& ctx, const CopyRowsArgs& args) {
  CheckMat(args.to, args.from.rows, args.from.cols);
  CheckMat(args.from, args.to.rows, args.to.cols);
  CheckSameDType(args.from, args.to);
  if (!args.scale.empty()) {
    CheckAct(args.to, args.to.rows, args.to.cols);
    CheckLength(args.scale, args.to.rows);
  }
  if (args.to.rows > 0 && args.to.cols > 0) ctx.backend->copy_rows(ctx, args);
}

void CopyRowsOnHost(ExecContext& /*ctx*/, const CopyRowsArgs& args) {
  const auto bytes = static_cast<size_t>(args.to.cols) * SizeOf(args.to.dtype);
  for (int64_t row = 0; row < args.to.rows; ++row) {
    if (!args.scale.empty()) {
      const float scale = args.scale[static_cast<size_t>(row)];
      for (int64_t c = 0; c < args.to.cols; ++c) {
        const float value = LoadFloat(args.from.RowBytes(row), args.from.dtype, c);
        StoreFloat(args.to.RowBytes(row), args.to.dtype, c, value * scale);
      }
      continue;
    }
    std::memcpy(args.to.RowBytes(row), args.from.RowBytes(row), bytes);
  }
}

void Rope(ExecContext& ctx, const RopeArgs& args) {
  CheckAct(args.x, static_cast<int64_t>(args.positions.size()), args.x.cols);
  MOEBIUS_CHECK_EQ(args.dim % 2, 0);
  MOEBIUS_CHECK_LE(args.dim, kMaxRopeDim);
  MOEBIUS_CHECK_GE(args.offset, 0);
  MOEBIUS_CHECK_GE(args.head_stride, args.offset + args.dim);
  MOEBIUS_CHECK_GE(args.x.cols, args.num_heads * args.head_stride);
  if (args.out.data != nullptr) {
    CheckAct(args.out, args.x.rows, args.out.cols);
    MOEBIUS_CHECK(args.out.dtype == args.x.dtype);
    MOEBIUS_CHECK_GE(args.out_head_stride, args.dim);
    MOEBIUS_CHECK_GE(args.out_offset, 0);
    MOEBIUS_CHECK_GE(args.out.cols,
                     (args.num_heads - 1) * args.out_head_stride + args.out_offset + args.dim);
  }
  CheckF32(args.table, args.table.rows, args.dim);
  for (const Position position : Readable(ctx, args.positions)) {
    MOEBIUS_CHECK_GE(position, 0);
    MOEBIUS_CHECK_LT(position, args.table.rows);
  }
  if (args.x.rows > 0 && args.num_heads > 0) ctx.backend->rope(ctx, args);
}

void Gemm(ExecContext& ctx, const GemmArgs& args) {
  CheckAct(args.a, args.out.rows, args.w->k);
  CheckWeight(*args.w, args.a.cols, false);
  CheckAct(args.out, args.a.rows, args.w->n);
  if (args.bias.data != nullptr) CheckF32(args.bias, 1, args.w->n);
  MOEBIUS_CHECK(!args.accumulate || args.out.dtype == DType::kF32);
  if (args.a.rows > 0) ctx.backend->gemm(ctx, args);
}

void HeadGemm(ExecContext& ctx, const HeadGemmArgs& args) {
  if (args.weights.empty()) return;
  const auto num_heads = static_cast<int64_t>(args.weights.size());
  CheckAct(args.a, args.out.rows, args.a.cols);
  CheckAct(args.out, args.a.rows, args.out.cols);
  const PackedWeight& first = args.weights[0];
  for (const PackedWeight& w : args.weights) {
    CheckWeight(w, first.k, false);
    MOEBIUS_CHECK_EQ(w.n, first.n);
    MOEBIUS_CHECK(w.format == first.format);
  }
  MOEBIUS_CHECK_GE(args.a.cols, (num_heads - 1) * args.a_head_stride + first.k);
  MOEBIUS_CHECK_GE(args.out.cols, (num_heads - 1) * args.out_head_stride + first.n);
  if (args.a.rows > 0) ctx.backend->head_gemm(ctx, args);
}

void SwiGlu(ExecContext& ctx, const SwiGluArgs& args) {
  CheckAct(args.a, args.out.rows, args.w->k);
  CheckWeight(*args.w, args.a.cols, true);
  CheckAct(args.out, args.a.rows, args.w->n);
  CheckSameDType(args.a, args.out);
  if (args.a.rows > 0) ctx.backend->swiglu(ctx, args);
}

void RouteTopK(ExecContext& ctx, const RouteTopKArgs& args) {
  const int64_t rows = args.logits.rows;
  const int64_t num_experts = args.logits.cols;
  CheckF32(args.logits, rows, num_experts);
  if (args.bias.data != nullptr) CheckF32(args.bias, 1, num_experts);
  MOEBIUS_CHECK_GT(args.num_groups, 0);
  MOEBIUS_CHECK_EQ(num_experts % args.num_groups, 0);
  MOEBIUS_CHECK_GE(args.num_top_groups, 1);
  MOEBIUS_CHECK_LE(args.num_top_groups, args.num_groups);
  MOEBIUS_CHECK_GE(args.k, 1);
  const bool limited = args.group_score != GroupScore::kNone;
  MOEBIUS_CHECK_LE(args.k,
                   limited ? num_experts / args.num_groups * args.num_top_groups : num_experts);
  CheckLength(args.experts, rows * args.k);
  CheckLength(args.weights, rows * args.k);
  if (rows > 0) ctx.backend->route_topk(ctx, args);
}

void ChooseSlots(ExecContext& ctx, const ChooseSlotsArgs& args) {
  CheckLength(args.experts, static_cast<int64_t>(args.tokens.size()) * args.k);
  CheckLength(args.slots, static_cast<int64_t>(args.experts.size()));
  const ReplicaTable& replicas = args.choice.replicas;
  const auto num_experts = static_cast<int64_t>(replicas.empty() ? args.choice.first_slot.size()
                                                                 : replicas.begin.size() - 1);
  CheckChoice(ctx, args.choice, num_experts, static_cast<int64_t>(args.tokens.size()));
  for (const int32_t expert : Readable(ctx, args.experts)) {
    MOEBIUS_CHECK_GE(expert, 0);
    MOEBIUS_CHECK_LT(expert, num_experts);
  }
  if (!args.experts.empty()) ctx.backend->choose_slots(ctx, args);
}

void GroupBySlot(ExecContext& ctx, const GroupBySlotArgs& args) {
  const auto num_pairs = static_cast<int64_t>(args.slots.size());
  CheckLength(args.offsets, args.num_slots + 1);
  CheckLength(args.pairs, num_pairs);
  CheckLength(args.places, num_pairs);
  for (const int32_t slot : Readable(ctx, args.slots)) MOEBIUS_CHECK_LT(slot, args.num_slots);
  ctx.backend->group_by_slot(ctx, args);
}

void GroupedSwiGlu(ExecContext& ctx, const GroupedSwiGluArgs& args) {
  const int64_t n = CheckSlotWeights(ctx, args.weights, args.offsets, args.a.cols, true);
  const int64_t num_places = NumPlaces(ctx, args.offsets, args.out.rows);
  CheckExpertRows(ctx, args);
  CheckAct(args.out, args.out.rows, args.out.cols);
  MOEBIUS_CHECK_LE(num_places, args.out.rows);
  MOEBIUS_CHECK_GE(args.rows_per_pair, 1);
  if (num_places == 0) return;
  MOEBIUS_CHECK_EQ(args.out.cols, n);
  if (!args.places.empty()) CheckLength(args.places, args.a.rows * args.rows_per_pair);
  if (args.pairs.empty()) {
    MOEBIUS_CHECK_LE(num_places, args.a.rows);
  } else {
    MOEBIUS_CHECK_LE(num_places, static_cast<int64_t>(args.pairs.size()));
    for (const int32_t pair : Readable(ctx, args.pairs.first(num_places))) {
      MOEBIUS_CHECK_GE(pair, 0);
      MOEBIUS_CHECK_LT(pair / args.rows_per_pair, args.a.rows);
      if (!args.row_scale.empty()) {
        MOEBIUS_CHECK_LT(pair, static_cast<int64_t>(args.row_scale.size()));
      }
    }
  }
  ctx.backend->grouped_swiglu(ctx, args);
}

void GroupedGemm(ExecContext& ctx, const GroupedGemmArgs& args) {
  const int64_t n = CheckSlotWeights(ctx, args.weights, args.offsets, args.a.cols, false);
  const int64_t num_places = NumPlaces(ctx, args.offsets, args.out.rows);
  CheckAct(args.a, args.a.rows, args.a.cols);
  CheckAct(args.out, args.out.rows, args.out.cols);
  MOEBIUS_CHECK_LE(num_places, args.a.rows);
  MOEBIUS_CHECK_LE(num_places, args.out.rows);
  if (num_places == 0) return;
  MOEBIUS_CHECK_EQ(args.out.cols, n);
  ctx.backend->grouped_gemm(ctx, args);
}

void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args) {
  CheckReduce(ctx, args);
  if (args.out.rows > 0) ctx.backend->weighted_reduce(ctx, args);
}

void KvWrite(ExecContext& ctx, const KvWriteArgs& args) {
  CheckAct(args.x, static_cast<int64_t>(args.rows.size()), args.x.cols);
  CheckLatentCache(args.cache, args.latent_dim, args.x.cols - args.latent_dim);
  for (const int64_t row : Readable(ctx, args.rows)) MOEBIUS_CHECK_LT(row, args.cache.rows);
  if (args.x.rows > 0) ctx.backend->kv_write(ctx, args);
}

void Attention(ExecContext& ctx, const AttentionArgs& args) {
  const int64_t rows = args.out.rows;
  MOEBIUS_CHECK_GT(args.num_kv_heads, 0);
  MOEBIUS_CHECK_EQ(args.num_heads % args.num_kv_heads, 0);
  CheckAct(args.q, rows, args.num_heads * args.head_dim);
  CheckAct(args.out, rows, args.num_heads * args.v_head_dim);
  CheckAct(args.k_cache, args.k_cache.rows, args.num_kv_heads * args.head_dim);
  CheckAct(args.v_cache, args.k_cache.rows, args.num_kv_heads * args.v_head_dim);
  CheckSameDType(args.k_cache, args.v_cache);
  MOEBIUS_CHECK(args.window >= 0 && args.chunk >= 0);
  CheckBatch(ctx, args.batch, rows, args.k_cache.rows);
  if (rows > 0) ctx.backend->attention(ctx, args);
}

void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args) {
  const int64_t rows = args.out.rows;
  CheckAct(args.q, rows, args.num_heads * (args.latent_dim + args.rope_dim));
  CheckAct(args.out, rows, args.num_heads * args.latent_dim);
  CheckLatentCache(args.cache, args.latent_dim, args.rope_dim);
  CheckBatch(ctx, args.batch, rows, args.cache.rows);
  if (rows > 0) ctx.backend->mla_attention(ctx, args);
}

void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args) {
  if (args.batch.expanded.empty()) return;
  MOEBIUS_CHECK(ctx.backend->mla_prefill != nullptr);
  const int64_t rows = args.out.rows;
  const auto num_heads = std::ssize(args.w_uk);
  MOEBIUS_CHECK_GT(num_heads, 0);
  MOEBIUS_CHECK_EQ(std::ssize(args.w_uv), num_heads);
  const int64_t nope = args.w_uk[0].k;
  const int64_t latent = args.w_uk[0].n;
  const int64_t value = args.w_uv[0].n;
  for (const PackedWeight& w : args.w_uk) {
    CheckWeight(w, nope, false);
    MOEBIUS_CHECK_EQ(w.n, latent);
    MOEBIUS_CHECK(w.format == args.w_uk[0].format);
  }
  for (const PackedWeight& w : args.w_uv) {
    CheckWeight(w, latent, false);
    MOEBIUS_CHECK_EQ(w.n, value);
    MOEBIUS_CHECK(w.format == args.w_uv[0].format);
  }
  CheckAct(args.q, rows, num_heads * (nope + args.rope_dim));
  CheckAct(args.out, rows, num_heads * value);
  CheckLatentCache(args.cache, latent, args.rope_dim);
  CheckBatch(ctx, args.batch, rows, args.cache.rows);
  int64_t end = 0;
  for (const AttentionItem& item : args.batch.expanded) {
    MOEBIUS_CHECK_GE(item.row, end);
    MOEBIUS_CHECK_GE(item.context, item.queries);
    end = item.row + item.queries;
  }
  MOEBIUS_CHECK_LE(end, rows);
  ctx.backend->mla_prefill(ctx, args);
}

void Sample(ExecContext& ctx, const SampleArgs& args) {
  if (!ctx.backend->on_host) {
    MOEBIUS_CHECK(args.staged != nullptr);
    CheckF32(args.logits, args.logits.rows, args.logits.cols);
    if (args.logits.rows > 0) ctx.backend->sample(ctx, args);
    return;
  }
  const auto num_rows = static_cast<int64_t>(args.rows.size());
  CheckF32(args.logits, num_rows, args.logits.cols);
  CheckLength(args.results, num_rows);
  for (int64_t i = 0; i < num_rows; ++i) {
    const SampleRow& row = args.rows[i];
    const SampleResult& result = args.results[i];
    MOEBIUS_CHECK_EQ(row.output_tokens.size(), row.output_counts.size());
    MOEBIUS_CHECK(row.allowed_mask.empty() ||
                  static_cast<int64_t>(row.allowed_mask.size()) * 32 >= args.logits.cols);
    MOEBIUS_CHECK_GE(static_cast<int64_t>(result.top_tokens.size()), row.num_logprobs);
    MOEBIUS_CHECK_GE(static_cast<int64_t>(result.top_logprobs.size()), row.num_logprobs);
    for (const auto& ids : {row.seen_tokens, row.output_tokens, row.banned_tokens}) {
      for (const TokenId id : ids) MOEBIUS_CHECK(id >= 0 && id < args.logits.cols);
    }
    for (const auto& [id, bias] : row.logit_bias) MOEBIUS_CHECK(id >= 0 && id < args.logits.cols);
    MOEBIUS_CHECK_LT(row.given, args.logits.cols);
  }
  if (num_rows > 0) ctx.backend->sample(ctx, args);
}

size_t OpWorkspaceBytes(const OpLimits& limits) {
  // Per thread: blocks of activations and sums of a matrix product (fixed; the widened rows of an
  // fp8 cache are fewer), the rows of an attention tile, a row of logits with its order. Once: the
  // task list of a grouped product.
  const size_t per_thread = (size_t{3} << 19) +
                            static_cast<size_t>(limits.head_dim + limits.v_head_dim) * 256 +
                            static_cast<size_t>(std::max(limits.vocab, limits.num_slots)) * 24;
  return static_cast<size_t>(limits.num_threads) * per_thread +
         static_cast<size_t>(limits.num_slots + 512) * 256 + 4096;
}

}  // namespace moebius::kernels
