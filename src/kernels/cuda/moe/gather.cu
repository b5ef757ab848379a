// From the router's experts to slots, and the rows of a grouped product brought together.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/choose.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kChoosingWarps = 4;  // of a block, a row each

__global__ void __launch_bounds__(32 * kChoosingWarps)
    ChooseSlotsKernel(const __grid_constant__ ChooseSlotsLaunch p) {
  AwaitEarlier();
  const int64_t row = blockIdx.x * int64_t{kChoosingWarps} + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int lane = threadIdx.x % 32;
  PutSlots(p.choice, row, p.k, lane < p.k ? p.experts[row * p.k + lane] : 0);
}

template <bool kFour, typename T>
__global__ void GatherKernel(const __grid_constant__ GatherLaunch p) {
  AwaitEarlier();
  const int64_t place = blockIdx.x;
  if (place >= *p.num_places) return;
  const int64_t pair = p.pairs != nullptr ? p.pairs[place] : place * p.rows_per_pair;
  const float scale = p.row_scale != nullptr ? p.row_scale[pair] : 1.0f;
  const T* in = static_cast<const T*>(p.in.data) + pair / p.rows_per_pair * p.in.stride;
  T* out = static_cast<T*>(p.out.data) + place * p.out.stride;
  constexpr int kStep = kFour ? 4 : 1;
  for (int64_t c = threadIdx.x * kStep; c < p.cols; c += blockDim.x * kStep) {
    if constexpr (kFour) {
      const float4 v = LoadFour(in + c);
      StoreFour(out + c, make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
    } else {
      StoreElement(out + c, LoadElement(in + c) * scale);
    }
  }
}

}  // namespace

int LaunchChooseSlots(const ChooseSlotsLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.k < 1 || args.k > 32) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>((args.rows + kChoosingWarps - 1) / kChoosingWarps);
  return LaunchEarly(ChooseSlotsKernel, blocks, 32 * kChoosingWarps, 0, stream, args);
}

int LaunchGather(const GatherLaunch& args, CUstream_st* stream) {
  if (args.places == 0 || args.cols == 0) return cudaSuccess;
  if (args.in.dtype != args.out.dtype) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(args.in.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool four = FitsFour(args.in, args.cols) && FitsFour(args.out, args.cols);
    auto* kernel = four ? GatherKernel<true, T> : GatherKernel<false, T>;
    error = LaunchEarly(kernel, static_cast<unsigned>(args.places), 256, 0, stream, args);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
