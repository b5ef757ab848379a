// Numbers of an fp8 cache as bfloat16, in registers.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/ptx/sync.cuh"

namespace moebius::kernels::cuda {

// Two e4m3 numbers, the first in the lower byte, times `scale`.
__device__ __forceinline__ uint32_t ScaledBf16(uint16_t codes, float scale) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
  const float2 x = __half22float2(*reinterpret_cast<const __half2*>(&halves));
  return moebius::cuda::ptx::PackBf16(x.x * scale, x.y * scale);
}
// Four numbers each of two words.
__device__ __forceinline__ uint4 ScaledBf16(uint32_t a, uint32_t b, float scale) {
  return make_uint4(ScaledBf16(static_cast<uint16_t>(a), scale),
                    ScaledBf16(static_cast<uint16_t>(a >> 16), scale),
                    ScaledBf16(static_cast<uint16_t>(b), scale),
                    ScaledBf16(static_cast<uint16_t>(b >> 16), scale));
}

}  // namespace moebius::kernels::cuda
