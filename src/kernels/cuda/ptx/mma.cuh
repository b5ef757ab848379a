// A warp's matrix multiply-accumulate (mma), operands in registers.
#pragma once

#include <cstdint>

namespace moebius::cuda::ptx {

// c (16 x 8, float32) += a (16 x 16) b (16 x 8), bfloat16. Lane 4 g + t gives rows g (a[0], a[2])
// and g + 8 (a[1], a[3]) of a and column g of b, and has columns 2 t, 2 t + 1 of c: row g in c[0],
// c[1], row g + 8 in c[2], c[3].
__device__ __forceinline__ void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c (16 x 8, float32) += a (16 x 32) b (32 x 8), e4m3: of every four k in a row one register, else
// as above.
__device__ __forceinline__ void MultiplyAddE4m3(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace moebius::cuda::ptx
