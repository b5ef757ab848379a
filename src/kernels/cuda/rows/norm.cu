// RMS norm with the residual add in it. Whole rows: a block a row, the row held in registers.
// Groups of a row (heads), and rows of any width or alignment: a warp a group, read twice.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

struct Norm {
  float* residual;
  int64_t residual_stride;
  const float* weight;
  float eps;
};

// kFours x 4 columns a thread.
template <int kFours, typename In, typename Out>
__global__ void RowNormKernel(const In* x, int64_t x_stride, Norm norm, Out* out,
                              int64_t out_stride, int cols) {
  const auto weight = [&](int i) {
    const int c = (i * blockDim.x + threadIdx.x) * 4;
    return norm.weight != nullptr && c < cols ? LoadFour(norm.weight + c) : make_float4(1, 1, 1, 1);
  };
  // No launch writes weights: they are here before the row is, where registers hold both.
  constexpr bool kHolds = kFours <= 4;
  float4 held[kHolds ? kFours : 1];
  if constexpr (kHolds) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) held[i] = weight(i);
  }
  AwaitEarlier();
  float4 v[kFours];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int c = (i * blockDim.x + threadIdx.x) * 4;
    v[i] = make_float4(0, 0, 0, 0);
    if (c >= cols) continue;
    if (x != nullptr) v[i] = LoadFour(x + blockIdx.x * x_stride + c);
    if (norm.residual != nullptr) {
      float* at = norm.residual + blockIdx.x * norm.residual_stride + c;
      const float4 r = LoadFour(at);
      v[i] = make_float4(v[i].x + r.x, v[i].y + r.y, v[i].z + r.z, v[i].w + r.w);
      if (x != nullptr) StoreFour(at, v[i]);
    }
    squares += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
  }
  const float factor = rsqrtf(BlockSum(squares) / static_cast<float>(cols) + norm.eps);
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int c = (i * blockDim.x + threadIdx.x) * 4;
    if (c >= cols) continue;
    const float4 w = kHolds ? held[i] : weight(i);
    StoreFour(out + blockIdx.x * out_stride + c,
              make_float4(v[i].x * factor * w.x, v[i].y * factor * w.y, v[i].z * factor * w.z,
                          v[i].w * factor * w.w));
  }
}

// Heads: a warp a group of 128 kFours columns, held in registers; no residual.
template <int kFours, typename In, typename Out>
__global__ void HeadNormKernel(const In* x, int64_t x_stride, Norm norm, Out* out,
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
__global__ void GroupNormKernel(const In* x, int64_t x_stride, Norm norm, Out* out,
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

bool RowFits(const RmsNormLaunch& args) {
  // Not a group that is the row: a rank with one head of many gives its bits.
  return args.group == 0 && args.cols <= 32768 &&
         (args.x.data == nullptr || FitsFour(args.x, args.cols)) && FitsFour(args.out, args.cols) &&
         (args.residual == nullptr ||
          FitsFour(args.residual, args.residual_stride, args.cols, 4)) &&
         (args.weight == nullptr || FitsFour(args.weight, 0, args.cols, 4));
}

bool HeadsFit(const RmsNormLaunch& args, int64_t group) {
  return (group == 128 || group == 256) && args.residual == nullptr &&
         FitsFour(args.x, args.cols) && FitsFour(args.out, args.cols) &&
         (args.weight == nullptr || FitsFour(args.weight, 0, group, 4));
}

template <typename In, typename Out>
cudaError_t LaunchRows(const RmsNormLaunch& args, const Norm& norm, cudaStream_t stream) {
  const auto* x = static_cast<const In*>(args.x.data);
  auto* out = static_cast<Out*>(args.out.data);
  const auto cols = static_cast<int>(args.cols);
  // Two fours a thread keep enough loads in flight; wider rows take more.
  const int fours = cols <= 8192 ? 2 : (cols <= 16384 ? 4 : 8);
  const int threads = ((cols + 4 * fours - 1) / (4 * fours) + 31) / 32 * 32;
  auto* kernel = fours == 2   ? RowNormKernel<2, In, Out>
                 : fours == 4 ? RowNormKernel<4, In, Out>
                              : RowNormKernel<8, In, Out>;
  return LaunchEarly(kernel, static_cast<unsigned>(args.rows), threads, 0, stream, x, args.x.stride,
                     norm, out, args.out.stride, cols);
}

}  // namespace

int LaunchRmsNorm(const RmsNormLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const int64_t group = args.group == 0 ? args.cols : args.group;
  if (args.cols % group != 0) return cudaErrorInvalidValue;
  if (args.x.data == nullptr && args.residual == nullptr) return cudaErrorInvalidValue;
  const Norm norm = {args.residual, args.residual_stride, args.weight, args.eps};
  cudaError_t error = cudaSuccess;
  const bool known = WithElements(args.x.dtype, args.out.dtype, [&](auto* in_type, auto* out_type) {
    using In = std::remove_pointer_t<decltype(in_type)>;
    using Out = std::remove_pointer_t<decltype(out_type)>;
    if (RowFits(args)) {
      error = LaunchRows<In, Out>(args, norm, stream);
      return;
    }
    const int64_t groups = args.cols / group;
    const auto blocks = static_cast<unsigned>((args.rows * groups + 7) / 8);
    const auto* x = static_cast<const In*>(args.x.data);
    auto* out = static_cast<Out*>(args.out.data);
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
