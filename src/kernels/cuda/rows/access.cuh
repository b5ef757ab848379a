// Loads and stores of rows as float32, one element or four at a time, and sums over a warp or a
// block.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {

__device__ __forceinline__ float LoadElement(const float* p) { return *p; }
__device__ __forceinline__ float LoadElement(const __nv_bfloat16* p) {
  return __bfloat162float(*p);
}
__device__ __forceinline__ void StoreElement(float* p, float x) { *p = x; }
__device__ __forceinline__ void StoreElement(__nv_bfloat16* p, float x) {
  *p = __float2bfloat16_rn(x);
}

// Four elements, aligned to their size.
__device__ __forceinline__ float4 LoadFour(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ __forceinline__ float4 LoadFour(const __nv_bfloat16* p) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&raw.x));
  const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&raw.y));
  return make_float4(a.x, a.y, b.x, b.y);
}
__device__ __forceinline__ void StoreFour(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
__device__ __forceinline__ void StoreFour(__nv_bfloat16* p, float4 v) {
  __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
  *reinterpret_cast<uint2*>(p) = *reinterpret_cast<uint2*>(pairs);
}

// silu(gate) * up.
__device__ __forceinline__ float GateUp(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}
// Of all threads of a block of whole warps; every thread gets it. One call a kernel.
__device__ __forceinline__ float BlockSum(float x) {
  __shared__ float sums[32];
  x = WarpSum(x);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  const int warps = blockDim.x / 32;
  return WarpSum(threadIdx.x % 32 < warps ? sums[threadIdx.x % 32] : 0.0f);
}

// Host: whether rows can be taken four elements at a time.
inline bool FitsFour(const void* data, int64_t stride, int64_t cols, int64_t element_bytes) {
  return cols % 4 == 0 && stride % 4 == 0 &&
         reinterpret_cast<uintptr_t>(data) % (4 * element_bytes) == 0;
}
inline bool FitsFour(const DeviceRows& rows, int64_t cols) {
  return FitsFour(rows.data, rows.stride, cols, static_cast<int64_t>(SizeOf(rows.dtype)));
}

// Host: calls f with a null pointer of the dtype's element type; false if it is another dtype.
template <typename F>
bool WithElement(DType dtype, const F& f) {
  if (dtype == DType::kF32) {
    f(static_cast<float*>(nullptr));
  } else if (dtype == DType::kBF16) {
    f(static_cast<__nv_bfloat16*>(nullptr));
  } else {
    return false;
  }
  return true;
}
template <typename F>
bool WithElements(DType a, DType b, const F& f) {
  bool known = false;
  return WithElement(a, [&](auto* pa) { known = WithElement(b, [&](auto* pb) { f(pa, pb); }); }) &&
         known;
}

}  // namespace moebius::kernels::cuda
