// Sums of all before, over the threads of a block: from the number of pairs that each slot has to
// where its places begin.
#pragma once

#include <cuda_runtime.h>

namespace moebius::kernels::cuda {

// Exclusive sums of totals[0 .. count) in place, by the whole block; returns the sum of all.
__device__ inline int ExclusiveSums(int* totals, int count) {
  __shared__ int warp_sums[32];
  int carry = 0;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  for (int begin = 0; begin < count; begin += blockDim.x) {
    const int i = begin + threadIdx.x;
    const int own = i < count ? totals[i] : 0;
    int sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    int before = carry;
    int all = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) {
      if (w < warp) before += warp_sums[w];
      all += warp_sums[w];
    }
    if (i < count) totals[i] = before + sum - own;
    carry += all;
    __syncthreads();
  }
  return carry;
}

}  // namespace moebius::kernels::cuda
