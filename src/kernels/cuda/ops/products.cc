// Dense products: our own kernel for few rows, cuBLASLt for bfloat16 and float32, the
// grouped kernel as one group for fp8, and our kernel of any shape where none serves.
#include "kernels/cuda/gemm/any_gemm.h"
#include "kernels/cuda/gemm/dense_products.h"
#include "kernels/cuda/gemm/few_rows.h"
#include "kernels/cuda/ops/cuda_ops.h"

namespace moebius::kernels::cuda {
namespace {

// out = a w^T, of `batch` products side by side; w_elements from one weight to the next.
struct Batched {
  Mat a;
  int64_t a_batch = 0;
  const PackedWeight* w = nullptr;
  int64_t w_batch = 0;
  int64_t n = 0;
  const float* bias = nullptr;
  Mat out;
  int64_t out_batch = 0;
  int64_t batch = 1;
  bool accumulate = false;
  bool gated = false;         // w has 2 n rows; only for few rows
  bool w_transposed = false;  // w is [k, n]
  int64_t k() const { return w_transposed ? w->n : w->k; }
};

bool RunFewRows(ExecContext& ctx, const Batched& p) {
  if (p.w->format == WeightFormat::kF32 || p.bias != nullptr || p.accumulate || p.w_transposed) {
    return false;
  }
  FewRowsLaunch launch;
  launch.a = RowsOf(p.a);
  launch.a_batch = p.a_batch;
  launch.w = p.w->data;
  launch.w_batch = p.w_batch;
  launch.scales = p.w->scales;
  launch.out = RowsOf(p.out);
  launch.out_batch = p.out_batch;
  launch.rows = p.a.rows;
  launch.n = p.n;
  launch.k = p.w->k;
  launch.batch = p.batch;
  launch.gated = p.gated;
  launch.num_sms = ctx.device->num_sms;
  const tuning::FewRowsShape shape = {
      .n = p.n, .k = p.w->k, .is_gated = p.gated, .is_fp8 = p.w->format == WeightFormat::kFp8Block};
  if (!tuning::FewRowsPay(launch.rows, shape) || !FitsFewRows(launch)) return false;
  ctx.device->Check(LaunchFewRows(launch, ctx.device->stream), "gemm");
  return true;
}

bool RunByLibrary(ExecContext& ctx, const Batched& p) {
  const DType element = ElementOf(p.w->format);
  if (ctx.device->dense == nullptr || p.bias != nullptr || element != p.a.dtype ||
      (element == DType::kF32 && p.out.dtype != DType::kF32)) {
    return false;
  }
  DenseProduct product;
  product.a = p.a.data;
  product.a_stride = p.a.stride;
  product.a_batch = p.a_batch;
  product.w = p.w->data;
  product.w_batch = p.w_batch;
  product.w_transposed = p.w_transposed;
  product.dtype = element;
  product.out = p.out.data;
  product.out_stride = p.out.stride;
  product.out_batch = p.out_batch;
  product.out_dtype = p.out.dtype;
  product.rows = p.a.rows;
  product.n = p.n;
  product.k = p.k();
  product.batch = p.batch;
  product.accumulate = p.accumulate;
  const char* text = ctx.device->dense->Run(product, ctx.device->stream);
  if (text == DenseProducts::kUnserved) return false;
  ctx.device->Check(text, "gemm");
  return true;
}

// fp8 on the tensor cores: a group of all rows.
bool RunAsOneGroup(ExecContext& ctx, const Batched& p) {
  if (p.w->format != WeightFormat::kFp8Block || p.batch != 1 || p.bias != nullptr || p.accumulate ||
      p.w_transposed) {
    return false;
  }
  return RunGroupedProduct(
      ctx, {.rows = p.a, .offsets = {}, .weights = {p.w, 1}, .n = p.n, .out = p.out});
}

void RunAny(ExecContext& ctx, const Batched& p) {
  AnyGemmLaunch launch;
  launch.a = RowsOf(p.a);
  launch.a_batch = p.a_batch;
  launch.w = p.w->data;
  launch.w_dtype = ElementOf(p.w->format);
  launch.w_batch = p.w_batch;
  launch.w_transposed = p.w_transposed;
  launch.scales = p.w->scales;
  launch.bias = p.bias;
  launch.out = RowsOf(p.out);
  launch.out_batch = p.out_batch;
  launch.rows = p.a.rows;
  launch.n = p.n;
  launch.k = p.k();
  launch.batch = p.batch;
  launch.accumulate = p.accumulate;
  ctx.device->Check(LaunchAnyGemm(launch, ctx.device->stream), "gemm");
}

void Run(ExecContext& ctx, const Batched& product) {
  if (ctx.device->deterministic) {
    RunAny(ctx, product);
    return;
  }
  if (RunFewRows(ctx, product) || RunByLibrary(ctx, product) || RunAsOneGroup(ctx, product)) {
    return;
  }
  RunAny(ctx, product);
}

}  // namespace

DType ElementOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return DType::kF32;
    case WeightFormat::kBF16:
      return DType::kBF16;
    case WeightFormat::kFp8Block:
      return DType::kF8E4M3;
  }
  return DType::kF32;
}

void Gemm(ExecContext& ctx, const GemmArgs& args) {
  Batched product;
  product.a = args.a;
  product.w = args.w;
  product.n = args.w->n;
  product.bias = FloatsOf(args.bias);
  product.out = args.out;
  product.accumulate = args.accumulate;
  Run(ctx, product);
}

namespace {

// Elements from one head's weight to the next: a plan lays a group's weights at one distance.
int64_t HeadDistance(std::span<const PackedWeight> weights) {
  if (weights.size() < 2) return 0;
  const int64_t bytes = static_cast<const std::byte*>(weights[1].data) -
                        static_cast<const std::byte*>(weights[0].data);
  return bytes / static_cast<int64_t>(SizeOf(ElementOf(weights[0].format)));
}

}  // namespace

void HeadGemm(ExecContext& ctx, const HeadGemmArgs& args) {
  const PackedWeight& first = args.weights.front();
  Batched product;
  product.a = args.a.Cols(0, first.k);
  product.a_batch = args.a_head_stride;
  product.w = &first;
  product.w_batch = HeadDistance(args.weights);
  product.n = first.n;
  product.out = args.out.Cols(0, first.n);
  product.out_batch = args.out_head_stride;
  product.batch = static_cast<int64_t>(args.weights.size());
  Run(ctx, product);
}

void ExpandRows(ExecContext& ctx, const Mat& rows, std::span<const PackedWeight> weights,
                bool transposed, const Mat& out) {
  Batched product;
  product.a = rows;
  product.w = weights.data();
  product.w_batch = HeadDistance(weights);
  product.w_transposed = transposed;
  product.n = transposed ? product.w->k : product.w->n;
  product.out = out;
  product.out_batch = product.n;
  product.batch = static_cast<int64_t>(weights.size());
  if (!transposed && product.w_batch == product.n * product.k()) {
    product.n *= product.batch;  // one weight of all heads
    product.batch = 1;
  }
  Run(ctx, product);
}

namespace {

// Gate and up, side by side, before the activation.
Mat RunGateUp(ExecContext& ctx, const SwiGluArgs& args) {
  const Mat both = ctx.workspace->AllocMat(args.out.dtype, args.a.rows, 2 * args.w->n);
  Batched product;
  product.a = args.a;
  product.w = args.w;
  product.n = both.cols;
  product.out = both;
  Run(ctx, product);
  return both;
}

}  // namespace

void SwiGlu(ExecContext& ctx, const SwiGluArgs& args) {
  Batched product;
  product.a = args.a;
  product.w = args.w;
  product.n = args.w->n;
  product.out = args.out;
  product.gated = true;
  if (!ctx.device->deterministic && RunFewRows(ctx, product)) return;
  const ArenaScope scope(*ctx.workspace);
  const int64_t n = args.w->n;
  const Mat both = RunGateUp(ctx, args);
  GatedLaunch gated;
  gated.in = RowsOf(both);
  gated.out = RowsOf(args.out);
  gated.rows = args.a.rows;
  gated.n = n;
  ctx.device->Check(LaunchGated(gated, ctx.device->stream), "swiglu");
}

void Mlp(ExecContext& ctx, const MlpArgs& args) {
  const GroupedProduct down = {.rows = args.first.out,
                               .offsets = {},
                               .weights = {args.down, 1},
                               .n = args.down->n,
                               .out = args.out};
  const auto is_few = [&](const PackedWeight& w) {
    return tuning::FewRowsPay(args.first.a.rows, FewRowsShapeOf(w));
  };
  if (ctx.device->deterministic || !TakesFp8Rows(down) ||
      (is_few(*args.first.w) && is_few(*args.down))) {
    MlpInSteps(ctx, args);
    return;
  }
  const ArenaScope scope(*ctx.workspace);
  const Mat both = RunGateUp(ctx, args.first);
  RunGatedProduct(ctx, both, down);
}

}  // namespace moebius::kernels::cuda
