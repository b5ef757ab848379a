// The codes of fp8 rows: each 128 columns share a scale, their largest over e4m3's.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>

namespace moebius::cuda {

constexpr int kScaleColumns = 128;

struct E4m3Scale {
  float scale;
  float inverse;
};
// The scale of columns with this largest magnitude, 1 where all are zero. The smallest normal
// number bounds the inverse away from infinity.
__device__ __forceinline__ E4m3Scale E4m3ScaleOf(float largest) {
  constexpr float kMaxE4m3 = 448.0f;
  const float scale = largest > 0.0f ? fmaxf(largest / kMaxE4m3, 1.2e-38f) : 1.0f;
  return {scale, 1.0f / scale};
}

// Four scaled numbers as codes, the first in the lowest byte; to nearest even, the largest at most.
__device__ __forceinline__ uint32_t E4m3Codes(float x0, float x1, float x2, float x3) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2({x0, x1}, __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2({x2, x3}, __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}

}  // namespace moebius::cuda
