// Attention: the kernel that the shape allows (tuning/attention_form.h), on a batch that was staged
// for that form.
#include <algorithm>

#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/gqa_prefill.h"
#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/attention/mla_prefill.h"
#include "kernels/cuda/ops/cuda_ops.h"
#include "kernels/cuda/ops/staged.h"
#include "kernels/tuning/attention_form.h"

namespace moebius::kernels::cuda {
namespace {

void RunAny(ExecContext& ctx, const GqaShape& shape, DType act, DType cache,
            const StagedAttention& staged) {
  AttentionAnyArgs any;
  any.shape = shape;
  any.dtype = act;
  any.cache_dtype = cache;
  any.items = staged.items;
  any.num_items = staged.num_items;
  ctx.device->Check(LaunchAttentionAny(any, ctx.device->stream), "attention");
}

}  // namespace

void Attention(ExecContext& ctx, const AttentionArgs& args) {
  const StagedAttention& staged = *args.batch.staged;
  GqaShape shape;
  shape.q = args.q.data;
  shape.k_cache = args.k_cache.data;
  shape.v_cache = args.v_cache.data;
  shape.out = args.out.data;
  shape.q_stride = args.q.stride;
  shape.k_stride = args.k_cache.stride;
  shape.v_stride = args.v_cache.stride;
  shape.num_heads = static_cast<int>(args.num_heads);
  shape.num_kv_heads = static_cast<int>(args.num_kv_heads);
  shape.head_dim = static_cast<int>(args.head_dim);
  shape.v_head_dim = static_cast<int>(args.v_head_dim);
  shape.scale = args.scale;
  shape.window = args.window;
  shape.chunk = args.chunk;
  shape.block_table = staged.block_table;
  shape.max_blocks = staged.max_blocks;
  shape.block_size = staged.block_size;
  const AttentionForm form = ChooseAttentionForm({.act = args.q.dtype,
                                                  .num_heads = shape.num_heads,
                                                  .num_kv_heads = shape.num_kv_heads,
                                                  .head_dim = args.head_dim,
                                                  .v_head_dim = args.v_head_dim,
                                                  .block_size = staged.block_size});
  if (form == AttentionForm::kAny) {
    RunAny(ctx, shape, args.q.dtype, args.k_cache.dtype, staged);
    return;
  }
  GqaPrefillArgs prefill;
  prefill.shape = shape;
  prefill.num_rows = args.q.rows;
  prefill.cache_rows = args.k_cache.rows;
  prefill.tiles = staged.items;
  prefill.num_tiles = static_cast<int>(staged.num_items);
  prefill.num_keys = staged.num_tiled_keys;
  prefill.next = ctx.device->next_work;
  prefill.num_sms = ctx.device->num_sms;
  ctx.device->Check(LaunchGqaPrefill(prefill, ctx.device->stream), "attention");
  GqaArgs gqa;
  gqa.shape = shape;
  gqa.max_queries = staged.max_queries;
  gqa.segments = staged.segments;
  gqa.num_segments = staged.num_segments;
  gqa.worker_begin = staged.worker_begin;
  gqa.num_workers = staged.num_workers;
  gqa.workspace = staged.partials;
  gqa.max_slots = staged.max_slots;
  gqa.arrivals = staged.arrivals;
  ctx.device->Check(LaunchGqa(gqa, ctx.device->stream), "attention");
}

void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args) {
  const StagedAttention& staged = *args.batch.staged;
  const int64_t width = args.latent_dim + args.rope_dim;
  const AttentionForm form = ChooseAttentionForm({.mla = true,
                                                  .act = args.q.dtype,
                                                  .num_heads = static_cast<int>(args.num_heads),
                                                  .num_kv_heads = 1,
                                                  .head_dim = width,
                                                  .v_head_dim = args.latent_dim,
                                                  .block_size = staged.block_size});
  if (form == AttentionForm::kAny) {
    // One latent head that is key and value both.
    GqaShape shape;
    shape.q = args.q.data;
    shape.k_cache = args.cache.data;
    shape.v_cache = args.cache.data;
    shape.out = args.out.data;
    shape.q_stride = args.q.stride;
    shape.k_stride = args.cache.stride;
    shape.v_stride = args.cache.stride;
    shape.num_heads = static_cast<int>(args.num_heads);
    shape.num_kv_heads = 1;
    shape.head_dim = static_cast<int>(width);
    shape.v_head_dim = static_cast<int>(args.latent_dim);
    shape.scale = args.scale;
    shape.block_table = staged.block_table;
    shape.max_blocks = staged.max_blocks;
    shape.block_size = staged.block_size;
    RunAny(ctx, shape, args.q.dtype, args.cache.dtype, staged);
    return;
  }
  MlaDecodeArgs mla;
  mla.q = args.q.data;
  mla.cache = args.cache.data;
  mla.is_fp8 = args.cache.dtype == DType::kF8E4M3;
  mla.out = args.out.data;
  mla.num_rows = args.q.rows;
  mla.cache_rows = args.cache.rows;
  mla.num_heads = static_cast<int>(args.num_heads);
  mla.scale = args.scale;
  mla.block_table = staged.block_table;
  mla.max_blocks = staged.max_blocks;
  mla.block_size = staged.block_size;
  mla.segments = staged.segments;
  mla.worker_begin = staged.worker_begin;
  mla.combine = staged.combine;
  mla.num_combine = staged.num_combine;
  mla.num_workers = staged.num_workers;
  mla.workspace = staged.partials;
  mla.max_slots = staged.max_slots;
  ctx.device->Check(LaunchMlaDecode(mla, ctx.device->stream), "mla_attention");
}

namespace {

// The workspace of a pass: kLatentPassBytes, and a few counters.
struct PassBuffers {
  PassBuffers(Arena& arena, const LatentPass& pass, int num_groups)
      : latents(arena.AllocMat(DType::kBF16, pass.num_keys, kMlaWidth)),
        keys(arena.AllocMat(DType::kBF16, pass.num_keys, pass.num_heads * kMlaHead)),
        values(arena.AllocMat(DType::kBF16, pass.num_keys, pass.num_heads * kMlaHead)),
        next(arena.Alloc<int32_t>(num_groups)) {}
  Mat latents;
  Mat keys;
  Mat values;
  int32_t* next;  // by group of heads
};

void Gather(ExecContext& ctx, const MlaPrefillArgs& args, const LatentPass& pass,
            const PassBuffers& b, int num_groups) {
  const StagedAttention& staged = *args.batch.staged;
  GatherLatentsLaunch gather;
  gather.cache = args.cache.data;
  gather.cache_stride = args.cache.stride;
  gather.is_fp8 = args.cache.dtype == DType::kF8E4M3;
  gather.block_table = staged.block_table;
  gather.max_blocks = staged.max_blocks;
  gather.block_size = staged.block_size;
  gather.sequences = staged.sequences + pass.first_sequence;
  gather.num_sequences = pass.num_sequences;
  gather.num_keys = pass.num_keys;
  gather.latents = b.latents.data;
  gather.next = b.next;
  gather.num_next = num_groups;
  ctx.device->Check(LaunchGatherLatents(gather, ctx.device->stream), "mla_prefill");
}

}  // namespace

void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args) {
  const StagedAttention& staged = *args.batch.staged;
  const auto num_heads = static_cast<int>(args.w_uk.size());
  for (const LatentPass& pass : staged.passes) {
    const ArenaScope scope(*ctx.workspace);
    const int num_groups = (num_heads + pass.num_heads - 1) / pass.num_heads;
    const PassBuffers b(*ctx.workspace, pass, num_groups);
    Gather(ctx, args, pass, b, num_groups);
    MlaPrefillLaunch launch;
    launch.q = args.q.data;
    launch.q_stride = args.q.stride;
    launch.num_rows = args.out.rows;
    launch.latents = b.latents.data;
    launch.keys = b.keys.data;
    launch.values = b.values.data;
    launch.expanded_stride = b.keys.stride;
    launch.num_keys = pass.num_keys;
    launch.tiles = staged.tiles + pass.first_tile;
    launch.num_tiles = pass.num_tiles;
    launch.num_sms = ctx.device->num_sms;
    launch.scale = args.scale;
    launch.out = args.out.data;
    launch.out_stride = args.out.stride;
    const Mat latent = b.latents.Cols(0, kMlaLatent);
    for (int group = 0; group < num_groups; ++group) {
      launch.first_head = group * pass.num_heads;
      launch.num_heads = std::min(pass.num_heads, num_heads - launch.first_head);
      launch.next = b.next + group;
      const auto first = static_cast<size_t>(launch.first_head);
      const auto count = static_cast<size_t>(launch.num_heads);
      const int64_t width = count * kMlaHead;
      ExpandRows(ctx, latent, args.w_uk.subspan(first, count), true, b.keys.Cols(0, width));
      ExpandRows(ctx, latent, args.w_uv.subspan(first, count), false, b.values.Cols(0, width));
      ctx.device->Check(LaunchMlaPrefill(launch, ctx.device->stream), "mla_prefill");
    }
  }
}

}  // namespace moebius::kernels::cuda
