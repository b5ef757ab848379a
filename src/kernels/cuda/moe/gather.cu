// From the router's experts to slots, and the rows of a grouped product brought together.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

__global__ void ChooseSlotsKernel(const __grid_constant__ ChooseSlotsLaunch p) {
  AwaitEarlier();
  const int64_t pair = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (pair >= p.rows * p.k) return;
  if (p.tokens[pair / p.k] < 0) {
    p.slots[pair] = -1;
    return;
  }
  const int32_t expert = p.experts[pair];
  p.slots[pair] = p.first_slot[expert];
  if (p.counts != nullptr) {
    atomicAdd(reinterpret_cast<unsigned long long*>(p.counts + expert), 1ull);
  }
  if (p.prompt_counts != nullptr && pair / p.k >= p.num_decodes) {
    atomicAdd(reinterpret_cast<unsigned long long*>(p.prompt_counts + expert), 1ull);
  }
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
  const int64_t pairs = args.rows * args.k;
  if (pairs == 0) return cudaSuccess;
  return LaunchEarly(ChooseSlotsKernel, static_cast<unsigned>((pairs + 255) / 256), 256, 0, stream,
                     args);
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
