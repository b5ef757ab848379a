#include "model/layers.h"

#include <cmath>
#include <utility>

#include "kernels/backend.h"

namespace moebius::model {

using kernels::ExecContext;

void Step::Reserve(Arena& arena, int64_t rows, DType act, int64_t hidden_size) {
  arena.AllocMat(DType::kF32, rows, hidden_size);
  arena.AllocMat(act, rows, hidden_size);
  arena.AllocMat(act, rows, hidden_size);
}

Step::Step(ExecContext& ctx, const ForwardBatch& batch, DType act, int64_t hidden_size)
    : ctx(ctx),
      batch(batch),
      act(act),
      rows(static_cast<int64_t>(batch.tokens.size())),
      stream(arena().AllocMat(DType::kF32, rows, hidden_size)),
      normed(arena().AllocMat(act, rows, hidden_size)),
      delta(arena().AllocMat(act, rows, hidden_size)) {}

void AddAndNorm(Step& step, const Norm& norm) {
  if (std::exchange(step.normed_by, nullptr) == &norm) return;
  kernels::RmsNorm(step.ctx, {.x = step.has_delta ? step.delta : Mat(),
                              .residual = step.stream,
                              .weight = norm.weight,
                              .eps = norm.eps,
                              .out = step.normed});
  step.has_delta = false;
}

void NormRows(ExecContext& ctx, Mat x, const Norm& norm, Mat out, int64_t group) {
  kernels::RmsNorm(
      ctx,
      {.x = x, .residual = {}, .weight = norm.weight, .eps = norm.eps, .group = group, .out = out});
}

void Project(ExecContext& ctx, Mat a, const kernels::PackedWeight& weight, Mat out) {
  if (weight.n == 0) return;  // a rank of many without a share
  kernels::GemmArgs args;
  args.a = a;
  args.w = &weight;
  args.out = out;
  kernels::Gemm(ctx, args);
}

void Project(ExecContext& ctx, Mat a, const Linear& linear, Mat out) {
  int64_t column = 0;
  for (const kernels::PackedWeight& part : linear.parts) {
    Project(ctx, a, part, out.Cols(column, part.n));
    column += part.n;
  }
}

Mat OwnColumns(ExecContext& ctx, const Split& split, Mat all) {
  if (split.group.size == 1 || ctx.backend->on_host) return split.Mine(all);
  return ctx.workspace->AllocMat(all.dtype, all.rows, split.count());
}

void Project(ExecContext& ctx, Mat a, const SplitWeight& weight, Mat out) {
  const ArenaScope scope(*ctx.workspace);
  const Mat mine = OwnColumns(ctx, weight.split, out);
  Project(ctx, a, weight.weight, mine);
  weight.split.Complete(mine, out);
}

void ReserveGqa(Arena& arena, int64_t rows, DType act, const AttentionConfig& config,
                int64_t head_columns) {
  arena.AllocMat(act, rows, (config.num_heads + 2 * config.num_kv_heads) * config.head_dim);
  arena.AllocMat(act, rows, head_columns);
}

namespace {

// Projected queries, keys and values -> queries to attend with, and the caches' new rows.
void PrepareHeads(Step& step, const AttentionConfig& config, const RopeTables& tables,
                  const GqaAttention& attention, const Model::KvLayer& cache, Mat qkv) {
  ExecContext& ctx = step.ctx;
  const int64_t head_dim = config.head_dim;
  const int64_t q_width = config.num_heads * head_dim;
  const int64_t kv_width = config.num_kv_heads * head_dim;
  if (attention.layer.rope && config.qk_norm != QkNorm::kL2AfterRope) {
    const bool normed = config.qk_norm == QkNorm::kRms;
    kernels::PrepareHeads(ctx, {.qkv = qkv,
                                .num_heads = config.num_heads,
                                .num_kv_heads = config.num_kv_heads,
                                .head_dim = head_dim,
                                .q_norm = normed ? attention.q_norm.weight : Mat(),
                                .k_norm = normed ? attention.k_norm.weight : Mat(),
                                .eps = attention.q_norm.eps,
                                .interleaved = config.rope_interleaved,
                                .positions = step.batch.positions,
                                .table = tables.rope,
                                .rows = step.batch.kv_rows,
                                .k_cache = cache.k,
                                .v_cache = cache.v});
    return;
  }
  const Mat q = qkv.Cols(0, q_width);
  const Mat k = qkv.Cols(q_width, kv_width);
  const Mat v = qkv.Cols(q_width + kv_width, kv_width);
  if (config.qk_norm == QkNorm::kRms) {
    NormRows(ctx, q, attention.q_norm, q, head_dim);
    NormRows(ctx, k, attention.k_norm, k, head_dim);
  }
  if (attention.layer.rope) {
    kernels::Rope(ctx, {.x = qkv.Cols(0, q_width + kv_width),  // keys follow queries
                        .num_heads = config.num_heads + config.num_kv_heads,
                        .head_stride = head_dim,
                        .dim = head_dim,
                        .interleaved = config.rope_interleaved,
                        .positions = step.batch.positions,
                        .table = tables.rope});
    NormRows(ctx, q, attention.q_norm, q, head_dim);
    NormRows(ctx, k, attention.k_norm, k, head_dim);
  } else if (tables.temperature.data != nullptr) {
    // A scale by position is a rotation by nothing, pair by pair.
    kernels::Rope(ctx, {.x = q,
                        .num_heads = q_width / 2,
                        .head_stride = 2,
                        .dim = 2,
                        .positions = step.batch.positions,
                        .table = tables.temperature});
  }
  kernels::KvWrite(ctx, {.x = k, .rows = step.batch.kv_rows, .cache = cache.k});
  kernels::KvWrite(ctx, {.x = v, .rows = step.batch.kv_rows, .cache = cache.v});
}

}  // namespace

void RunGqa(Step& step, const AttentionConfig& config, const RopeTables& tables,
            const GqaAttention& attention, const Model::KvLayer& cache) {
  if (step.rows == 0) return;
  const PartTimer timer(step.batch.times, &PartTimes::attention);
  const ArenaScope scope(step.arena());
  ExecContext& ctx = step.ctx;
  const int64_t head_dim = config.head_dim;
  const int64_t q_width = config.num_heads * head_dim;
  const int64_t kv_width = config.num_kv_heads * head_dim;
  const Mat qkv = step.arena().AllocMat(step.act, step.rows, q_width + 2 * kv_width);
  const Mat all_heads = step.arena().AllocMat(step.act, step.rows, attention.output.weight.k);
  const Mat heads = OwnColumns(ctx, attention.heads, all_heads);
  Project(ctx, step.normed, attention.qkv, qkv);
  PrepareHeads(step, config, tables, attention, cache, qkv);
  kernels::Attention(ctx, {.batch = step.batch.attention,
                           .q = qkv.Cols(0, q_width),
                           .k_cache = cache.k,
                           .v_cache = cache.v,
                           .num_heads = config.num_heads,
                           .num_kv_heads = config.num_kv_heads,
                           .head_dim = head_dim,
                           .v_head_dim = head_dim,
                           .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                           .window = attention.layer.window,
                           .chunk = attention.layer.chunk,
                           .out = heads});
  attention.heads.Complete(heads, all_heads);
  Project(ctx, all_heads, attention.output, step.delta);
  step.has_delta = true;
}

void ReserveMlp(Arena& arena, int64_t rows, DType act, int64_t inner) {
  arena.AllocMat(act, rows, inner);
}

void RunMlpSlice(ExecContext& ctx, const Mlp& mlp, Mat in, Mat mine) {
  const ArenaScope scope(*ctx.workspace);
  const Mat hidden = ctx.workspace->AllocMat(in.dtype, in.rows, mlp.down.weight.k);
  const kernels::SwiGluArgs first = {
      .a = in, .w = &mlp.gate_up.weight, .out = mlp.gate_up.split.Mine(hidden)};
  if (mlp.gate_up.split.group.size == 1) {
    kernels::Mlp(ctx, {.first = first, .down = &mlp.down.weight, .out = mine});
    return;
  }
  if (mlp.gate_up.weight.n > 0) kernels::SwiGlu(ctx, first);
  mlp.gate_up.split.Complete(hidden);
  Project(ctx, hidden, mlp.down.weight, mine);
}

void RunMlp(Step& step, const Mlp& mlp, Mat in, Mat out) {
  const ArenaScope scope(step.arena());
  const Mat mine = OwnColumns(step.ctx, mlp.down.split, out);
  RunMlpSlice(step.ctx, mlp, in, mine);
  mlp.down.split.Complete(mine, out);
  step.has_delta = true;
}

}  // namespace moebius::model
