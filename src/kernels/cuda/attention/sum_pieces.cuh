// Softmax sums of a row over parts of its context, put together: those of a block's warps, and
// those of blocks of one launch, by the block that ends last. Device code.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention/hopper.cuh"

namespace moebius::kernels::cuda {

// Whether all `count` blocks have come that count in `arrivals`: true for the last of them, which
// leaves zero there. Called by all threads of a block when they have written its sums; those of the
// other blocks may be read then, past the first-level cache (__ldcg).
__device__ __forceinline__ bool IsLastOf(int count, int32_t* arrivals) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(arrivals)
                 : "memory");
    is_last = before == count - 1;
    if (is_last) *arrivals = 0;
  }
  __syncthreads();
  return is_last;
}

// Weights are powers of two over the part's largest score (base 2; -infinity: it sees nothing).
struct alignas(8) SoftmaxShare {
  float top = -INFINITY;
  float sum = 0;  // of the weights
};

// Four columns of a row: values times weights. Parts are added in their order, so it does not
// matter who adds them.
struct PartSum {
  SoftmaxShare all;
  float4 x = {0, 0, 0, 0};

  __device__ void Scale(float factor) {
    x.x *= factor;
    x.y *= factor;
    x.z *= factor;
    x.w *= factor;
  }
  template <int kCount>
  __device__ void Add(const SoftmaxShare (&of)[kCount], const float4 (&values)[kCount]) {
    float top = all.top;
#pragma unroll
    for (int i = 0; i < kCount; ++i) top = fmaxf(top, of[i].top);
    const float base = top == -INFINITY ? 0.0f : top;
    const float factor = Exp2(all.top - base);
    all.top = top;
    all.sum *= factor;
    Scale(factor);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float weight = Exp2(of[i].top - base);
      all.sum += weight * of[i].sum;
      x.x += weight * values[i].x;
      x.y += weight * values[i].y;
      x.z += weight * values[i].z;
      x.w += weight * values[i].w;
    }
  }
  // Divided by the denominator, in bfloat16; zeros where nothing is visible.
  __device__ uint2 Output() {
    Scale(all.sum > 0 ? __fdividef(1.0f, all.sum) : 0.0f);
    return make_uint2(PackBf16(x.x, x.y), PackBf16(x.z, x.w));
  }
};

}  // namespace moebius::kernels::cuda
