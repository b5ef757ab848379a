// Floats as unsigned integers of the same order, for what compares them in integer instructions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moebius::kernels::cuda {

// Above zero; both zeros are one, NaN counts as -inf.
__device__ __forceinline__ uint32_t KeyOf(float x) {
  if (isnan(x)) x = -INFINITY;
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float ValueOf(uint32_t key) {
  return __uint_as_float(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

}  // namespace moebius::kernels::cuda
