// The weighted sum of a token's expert rows: a block a piece of a row.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

__device__ void AddScaled(float4& sum, float weight, float4 x) {
  sum.x = fmaf(weight, x.x, sum.x);
  sum.y = fmaf(weight, x.y, sum.y);
  sum.z = fmaf(weight, x.z, sum.z);
  sum.w = fmaf(weight, x.w, sum.w);
}

template <bool kFour, typename In, typename Out>
__global__ void ReduceKernel(const In* in, int64_t in_stride, const int32_t* places,
                             const float* weights, int k, const In* shared, int64_t shared_stride,
                             Out* out, int64_t out_stride, int64_t cols) {
  AwaitEarlier();
  const int64_t row = blockIdx.x;
  constexpr int kStep = kFour ? 4 : 1;
  const int64_t c = (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kStep;
  if (c >= cols) return;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int j = 0; j < k; ++j) {
    const int32_t place = places[row * k + j];
    if (place < 0) continue;
    const float weight = weights != nullptr ? weights[row * k + j] : 1.0f;
    const In* from = in + place * in_stride + c;
    if constexpr (kFour) {
      AddScaled(sum, weight, LoadFour(from));
    } else {
      sum.x = fmaf(weight, LoadElement(from), sum.x);
    }
  }
  Out* to = out + row * out_stride + c;
  if constexpr (kFour) {
    if (shared != nullptr) AddScaled(sum, 1.0f, LoadFour(shared + row * shared_stride + c));
    StoreFour(to, sum);
  } else {
    if (shared != nullptr) sum.x += LoadElement(shared + row * shared_stride + c);
    StoreElement(to, sum.x);
  }
}

}  // namespace

int LaunchWeightedReduce(const WeightedReduceLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (args.shared.data != nullptr && args.shared.dtype != args.in.dtype) {
    return cudaErrorInvalidValue;
  }
  cudaError_t error = cudaSuccess;
  const bool known = WithElements(args.in.dtype, args.out.dtype, [&](auto* in_type, auto* type) {
    using In = std::remove_pointer_t<decltype(in_type)>;
    using Out = std::remove_pointer_t<decltype(type)>;
    const bool four = FitsFour(args.in, args.cols) && FitsFour(args.out, args.cols) &&
                      (args.shared.data == nullptr || FitsFour(args.shared, args.cols));
    const int64_t items = four ? args.cols / 4 : args.cols;
    const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>((items + 255) / 256));
    auto* kernel = four ? ReduceKernel<true, In, Out> : ReduceKernel<false, In, Out>;
    error = LaunchEarly(kernel, grid, 256, 0, stream, static_cast<const In*>(args.in.data),
                        args.in.stride, args.places, args.weights, args.k,
                        static_cast<const In*>(args.shared.data), args.shared.stride,
                        static_cast<Out*>(args.out.data), args.out.stride, args.cols);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
