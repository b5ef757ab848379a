// The matrix products as lists of jobs.
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/product.h"

namespace moebius::kernels::cpu {
namespace {

// The jobs of a grouped product: one a slot that has rows.
std::span<ProductJob> SlotJobs(ExecContext& ctx, std::span<const PackedWeight> weights,
                               std::span<const int32_t> offsets, const Mat& a, bool gathered,
                               const Mat& out) {
  auto* jobs = ctx.workspace->Alloc<ProductJob>(static_cast<int64_t>(weights.size()));
  size_t num_jobs = 0;
  for (size_t s = 0; s < weights.size(); ++s) {
    const int32_t begin = offsets[s];
    const int32_t count = offsets[s + 1] - begin;
    if (count == 0) continue;
    ProductJob job;
    job.w = &weights[s];
    job.a = gathered ? a : a.Rows(begin, count);
    job.out = out.Rows(begin, count);
    job.place = begin;
    jobs[num_jobs++] = job;
  }
  return {jobs, num_jobs};
}

}  // namespace

void Gemm(ExecContext& ctx, const GemmArgs& args) {
  ProductJob job;
  job.w = args.w;
  job.a = args.a;
  job.out = args.out;
  ProductOptions options;
  options.accumulate = args.accumulate;
  options.bias = static_cast<const float*>(args.bias.data);
  RunProduct(ctx, {&job, 1}, options);
}

void SwiGlu(ExecContext& ctx, const SwiGluArgs& args) {
  ProductJob job;
  job.w = args.w;
  job.a = args.a;
  job.out = args.out;
  RunProduct(ctx, {&job, 1}, {});
}

void HeadGemm(ExecContext& ctx, const HeadGemmArgs& args) {
  ArenaScope scope(*ctx.workspace);
  const auto num_heads = static_cast<int64_t>(args.weights.size());
  auto* jobs = ctx.workspace->Alloc<ProductJob>(num_heads);
  for (int64_t h = 0; h < num_heads; ++h) {
    ProductJob job;
    job.w = &args.weights[h];
    job.a = args.a.Cols(h * args.a_head_stride, job.w->k);
    job.out = args.out.Cols(h * args.out_head_stride, job.w->n);
    jobs[h] = job;
  }
  RunProduct(ctx, {jobs, args.weights.size()}, {});
}

void GroupedSwiGlu(ExecContext& ctx, const GroupedSwiGluArgs& args) {
  ArenaScope scope(*ctx.workspace);
  ProductOptions options;
  options.pairs = args.pairs;
  options.rows_per_pair = args.rows_per_pair;
  options.row_scale = args.row_scale;
  RunProduct(ctx, SlotJobs(ctx, args.weights, args.offsets, args.a, !args.pairs.empty(), args.out),
             options);
}

void GroupedGemm(ExecContext& ctx, const GroupedGemmArgs& args) {
  ArenaScope scope(*ctx.workspace);
  RunProduct(ctx, SlotJobs(ctx, args.weights, args.offsets, args.a, false, args.out), {});
}

}  // namespace moebius::kernels::cpu
