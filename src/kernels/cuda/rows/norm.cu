// RMS norm with the residual add in it. Whole rows: row_norm.cuh. Groups of a row (heads), and rows
// of any width or alignment: a warp a group, read twice.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/row_norm.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

// Heads: a warp a group of 128 kFours columns, held in registers; no residual.
template <int kFours, typename In, typename Out>
__global__ void HeadNormKernel(const In* x, int64_t x_stride, RowNorm norm, Out* out,
                               int64_t out_stride, int64_t rows, int64_t groups) {
  AwaitEarlier();
  const int64_t item = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32;
  if (item >= rows * groups) return;
  const int64_t begin = item % groups * 128 * kFours + threadIdx.x % 32 * 4;
  const In* from = x + item / groups * x_stride + begin;
  Out* to = out + item / groups * out_stride + begin;
  float4 v[kFours];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    v[i] = LoadFour(from + 128 * i);
    squares += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
  }
  const float factor = rsqrtf(WarpSum(squares) / (128.0f * kFours) + norm.eps);
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int c = 128 * i + threadIdx.x % 32 * 4;
    const float4 w = norm.weight != nullptr ? LoadFour(norm.weight + c) : make_float4(1, 1, 1, 1);
    StoreFour(to + 128 * i, make_float4(v[i].x * factor * w.x, v[i].y * factor * w.y,
                                        v[i].z * factor * w.z, v[i].w * factor * w.w));
  }
}

template <typename In, typename Out>
__global__ void GroupNormKernel(const In* x, int64_t x_stride, RowNorm norm, Out* out,
                                int64_t out_stride, int64_t rows, int64_t groups, int64_t group) {
  AwaitEarlier();
  const int64_t item = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32;
  if (item >= rows * groups) return;
  const int64_t row = item / groups;
  const int64_t begin = item % groups * group;
  const int lane = threadIdx.x % 32;
  // What is normalised: x, or the residual once x is in it (this lane wrote it).
  const auto read = [&](int64_t c) {
    return norm.residual != nullptr ? norm.residual[row * norm.residual_stride + c]
                                    : LoadElement(x + row * x_stride + c);
  };
  float squares = 0;
  for (int64_t c = begin + lane; c < begin + group; c += 32) {
    if (norm.residual != nullptr && x != nullptr) {
      norm.residual[row * norm.residual_stride + c] += LoadElement(x + row * x_stride + c);
    }
    const float v = read(c);
    squares += v * v;
  }
  const float factor = rsqrtf(WarpSum(squares) / static_cast<float>(group) + norm.eps);
  for (int64_t c = begin + lane; c < begin + group; c += 32) {
    const float weight = norm.weight != nullptr ? norm.weight[c - begin] : 1.0f;
    StoreElement(out + row * out_stride + c, read(c) * factor * weight);
  }
}

bool HeadsFit(const RmsNormLaunch& args, int64_t group) {
  return (group == 128 || group == 256) && args.residual == nullptr &&
         FitsFour(args.x, args.cols) && FitsFour(args.out, args.cols) &&
         (args.weight == nullptr || FitsFour(args.weight, 0, group, 4));
}

}  // namespace

int LaunchRmsNorm(const RmsNormLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const int64_t group = args.group == 0 ? args.cols : args.group;
  if (args.cols % group != 0) return cudaErrorInvalidValue;
  if (args.x.data == nullptr && args.residual == nullptr) return cudaErrorInvalidValue;
  const RowNorm norm = {args.residual, args.residual_stride, args.weight, args.eps};
  cudaError_t error = cudaSuccess;
  const bool known = WithElements(args.x.dtype, args.out.dtype, [&](auto* in_type, auto* out_type) {
    using In = std::remove_pointer_t<decltype(in_type)>;
    using Out = std::remove_pointer_t<decltype(out_type)>;
    const auto* x = static_cast<const In*>(args.x.data);
    auto* out = static_cast<Out*>(args.out.data);
    if (FitsRowNorm(args)) {
      error = LaunchRowNorm<Out>(args, RowsAsTheyAre<In>{x, args.x.stride}, stream);
      return;
    }
    const int64_t groups = args.cols / group;
    const auto blocks = static_cast<unsigned>((args.rows * groups + 7) / 8);
    if (HeadsFit(args, group)) {
      auto* kernel = group == 128 ? HeadNormKernel<1, In, Out> : HeadNormKernel<2, In, Out>;
      error = LaunchEarly(kernel, blocks, 256, 0, stream, x, args.x.stride, norm, out,
                          args.out.stride, args.rows, groups);
      return;
    }
    error = LaunchEarly(GroupNormKernel<In, Out>, blocks, 256, 0, stream, x, args.x.stride, norm,
                        out, args.out.stride, args.rows, groups, group);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
