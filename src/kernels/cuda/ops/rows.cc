// Operations of one row at a time: the launches of rows/ with an operation's arguments.
#include "kernels/cuda/ops/cuda_ops.h"
#include "kernels/cuda/ops/staged.h"
#include "kernels/cuda/rows/sample.h"

namespace moebius::kernels::cuda {

void Embed(ExecContext& ctx, const EmbedArgs& args) {
  EmbedLaunch launch;
  launch.tokens = args.tokens.data();
  launch.table = RowsOf(args.table);
  launch.out = RowsOf(args.out);
  launch.vocab = args.table.rows;
  launch.rows = args.out.rows;
  launch.cols = args.out.cols;
  ctx.device->Check(LaunchEmbed(launch, ctx.device->stream), "embed");
}

RmsNormLaunch LaunchOf(const RmsNormArgs& args) {
  RmsNormLaunch launch;
  launch.x = RowsOf(args.x);
  launch.residual = static_cast<float*>(args.residual.data);
  launch.residual_stride = args.residual.stride;
  launch.weight = FloatsOf(args.weight);
  launch.eps = args.eps;
  launch.group = args.group;
  launch.out = RowsOf(args.out);
  launch.rows = args.out.rows;
  launch.cols = args.out.cols;
  return launch;
}

void RmsNorm(ExecContext& ctx, const RmsNormArgs& args) {
  ctx.device->Check(LaunchRmsNorm(LaunchOf(args), ctx.device->stream), "rms_norm");
}

void Add(ExecContext& ctx, const AddArgs& args) {
  AddLaunch launch;
  launch.x = static_cast<float*>(args.x.data);
  launch.x_stride = args.x.stride;
  launch.y = RowsOf(args.y);
  launch.rows = args.x.rows;
  launch.cols = args.x.cols;
  ctx.device->Check(LaunchAdd(launch, ctx.device->stream), "add");
}

void CopyRows(ExecContext& ctx, const CopyRowsArgs& args) {
  ctx.device->Check(
      LaunchCopyRows(RowsOf(args.from), RowsOf(args.to), args.to.rows, args.to.cols,
                     args.scale.empty() ? nullptr : args.scale.data(), ctx.device->stream),
      "copy_rows");
}

void Rope(ExecContext& ctx, const RopeArgs& args) {
  RopeLaunch launch;
  launch.x = RowsOf(args.x);
  launch.rows = args.x.rows;
  launch.num_heads = args.num_heads;
  launch.head_stride = args.head_stride;
  launch.offset = args.offset;
  launch.dim = args.dim;
  launch.interleaved = args.interleaved;
  launch.deinterleave = args.deinterleave;
  launch.positions = args.positions.data();
  launch.table = FloatsOf(args.table);
  launch.out = RowsOf(args.out);
  launch.out_head_stride = args.out_head_stride;
  launch.out_offset = args.out_offset;
  ctx.device->Check(LaunchRope(launch, ctx.device->stream), "rope");
}

void KvWrite(ExecContext& ctx, const KvWriteArgs& args) {
  KvWriteLaunch launch;
  launch.x = RowsOf(args.x);
  launch.cache_rows = args.rows.data();
  launch.cache = RowsOf(args.cache);
  launch.rows = args.x.rows;
  launch.cols = args.x.cols;
  ctx.device->Check(LaunchKvWrite(launch, ctx.device->stream), "kv_write");
}

void PrepareHeads(ExecContext& ctx, const PrepareHeadsArgs& args) {
  PrepareHeadsLaunch launch;
  launch.x = RowsOf(args.qkv);
  launch.rows = args.qkv.rows;
  launch.num_heads = args.num_heads;
  launch.num_kv_heads = args.num_kv_heads;
  launch.head_dim = args.head_dim;
  launch.q_weight = FloatsOf(args.q_norm);
  launch.k_weight = FloatsOf(args.k_norm);
  launch.eps = args.eps;
  launch.interleaved = args.interleaved;
  launch.positions = args.positions.data();
  launch.table = FloatsOf(args.table);
  launch.cache_rows = args.rows.data();
  launch.k_cache = RowsOf(args.k_cache);
  launch.v_cache = RowsOf(args.v_cache);
  ctx.device->Check(LaunchPrepareHeads(launch, ctx.device->stream), "prepare_heads");
}

void PrepareLatents(ExecContext& ctx, const PrepareLatentsArgs& args) {
  MlaKvWriteLaunch launch;
  launch.x = RowsOf(args.x);
  launch.rows = args.x.rows;
  launch.latent = args.latent_dim;
  launch.rope = args.x.cols - args.latent_dim;
  launch.weight = FloatsOf(args.norm);
  launch.eps = args.eps;
  launch.interleaved = args.interleaved;
  launch.positions = args.positions.data();
  launch.table = FloatsOf(args.table);
  launch.cache_rows = args.rows.data();
  launch.cache = RowsOf(args.cache);
  launch.queries = RowsOf(args.q);
  launch.query_cols = args.q.cols;
  launch.query_weight = FloatsOf(args.q_norm);
  launch.query_eps = args.q_eps;
  ctx.device->Check(LaunchMlaKvWrite(launch, ctx.device->stream), "prepare_latents");
}

void Sample(ExecContext& ctx, const SampleArgs& args) {
  SampleLaunch launch = args.staged->launch;
  launch.logits = static_cast<float*>(args.logits.data);
  launch.logits_stride = args.logits.stride;
  launch.rows = args.logits.rows;
  launch.vocab = args.logits.cols;
  ctx.device->Check(LaunchSample(launch, ctx.device->stream), "sample");
}

}  // namespace moebius::kernels::cuda
