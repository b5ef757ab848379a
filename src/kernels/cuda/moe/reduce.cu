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
  constexpr int kStep = kFour ? 4 : 1;
  constexpr int kTogether = 8;  // rows that are asked for before the first is added
  AwaitEarlier();
  const int64_t row = blockIdx.x;
  const int64_t c = (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kStep;
  if (c >= cols) return;
  const auto load = [](const In* from) {
    if constexpr (kFour) return LoadFour(from);
    return make_float4(LoadElement(from), 0, 0, 0);
  };
  const float4 last = shared != nullptr ? load(shared + row * shared_stride + c) : float4{};
  float4 sum = {};
  for (int begin = 0; begin < k; begin += kTogether) {
    int32_t place[kTogether];
    float weight[kTogether];
    float4 x[kTogether];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      const bool is_there = begin + j < k;
      place[j] = is_there ? places[row * k + begin + j] : -1;
      weight[j] = is_there && weights != nullptr ? weights[row * k + begin + j] : 1.0f;
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      x[j] = place[j] >= 0 ? load(in + place[j] * in_stride + c) : float4{};
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      if (place[j] >= 0) AddScaled(sum, weight[j], x[j]);
    }
  }
  if (shared != nullptr) AddScaled(sum, 1.0f, last);
  Out* to = out + row * out_stride + c;
  if constexpr (kFour) {
    StoreFour(to, sum);
  } else {
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
