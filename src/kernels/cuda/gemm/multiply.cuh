// What a consumer warpgroup does with one stage of the pipeline: multiply 128 bytes of K and, for
// fp8, add the result to the float32 sums with the scales of that block of K (promotion: the tensor
// core's own fp8 sums keep about 14 bits).
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm/traits.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace moebius::cuda {

// Issues the four instructions of one instruction height: d = (d +) a * b^T over 128 bytes of K.
template <class T>
__device__ __forceinline__ void IssueWave(float (&d)[T::kColumns / 2], uint64_t a, uint64_t b,
                                          bool accumulate_first) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    ptx::Wgmma<typename T::Operand, T::kColumns>::Run(d, a + step * ptx::kDescriptorStep,
                                                      b + step * ptx::kDescriptorStep,
                                                      step > 0 || accumulate_first);
  }
}

// sums += d * (scale of the weight block) * (scale of the token row), tokens as the instruction's
// rows.
template <class T>
__device__ __forceinline__ void PromoteRows(float (&sums)[T::kColumns / 2],
                                            const float (&d)[T::kColumns / 2], float low,
                                            float high) {
#pragma unroll
  for (int i = 0; i < T::kColumns / 2; i += 4) {
    sums[i] += low * d[i];
    sums[i + 1] += low * d[i + 1];
    sums[i + 2] += high * d[i + 2];
    sums[i + 3] += high * d[i + 3];
  }
}

// The same with tokens as its columns: scales[8j + 2q], scales[8j + 2q + 1] belong to this thread
// (q = lane % 4).
template <class T>
__device__ __forceinline__ void PromoteColumns(float (&sums)[T::kColumns / 2],
                                               const float (&d)[T::kColumns / 2],
                                               const float* scales, float weight_scale) {
#pragma unroll
  for (int i = 0; i < T::kColumns / 2; i += 4) {
    const float even = scales[2 * i] * weight_scale;
    const float odd = scales[2 * i + 1] * weight_scale;
    sums[i] += even * d[i];
    sums[i + 1] += odd * d[i + 1];
    sums[i + 2] += even * d[i + 2];
    sums[i + 3] += odd * d[i + 3];
  }
}

}  // namespace moebius::cuda
