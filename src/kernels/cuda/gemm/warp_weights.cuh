// Rows of bf16 weights that a warp holds in registers and multiplies by rows of inputs: what
// products of a few rows are made of.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {

constexpr int kUnit = 8;  // elements of a load of 16 bytes

__device__ __forceinline__ void AddProducts(float& sum, const uint4& a, const uint4& b) {
  const uint32_t x[4] = {a.x, a.y, a.z, a.w};
  const uint32_t y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(__uint_as_float(x[i] << 16), __uint_as_float(y[i] << 16), sum);
    sum = fmaf(__uint_as_float(x[i] & 0xffff0000u), __uint_as_float(y[i] & 0xffff0000u), sum);
  }
}

// Zero past the row's units.
__device__ __forceinline__ uint4 LoadUnit(const __nv_bfloat16* row, int unit, int units) {
  return unit < units ? reinterpret_cast<const uint4*>(row)[unit] : make_uint4(0, 0, 0, 0);
}

// The rows of weights that a warp multiplies by, one or two (gate and up); lane l has units l, l +
// 32, .., kHeld of each row at a time. What lies past a row counts as zero.
template <int kCount, int kHeld>
struct WarpWeights {
  const uint4* row[kCount];
  int units;  // of a row
  uint4 held[kCount][kHeld];

  // Row `first` of w, and the one `step` rows further.
  __device__ WarpWeights(const void* w, int64_t first, int64_t step, int units) : units(units) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      row[c] = static_cast<const uint4*>(w) + (first + c * step) * units;
    }
  }

  __device__ __forceinline__ void Load(int first) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int unit = first + 32 * i;
        held[c][i] = unit < units ? __ldcs(row[c] + unit) : make_uint4(0, 0, 0, 0);
      }
    }
  }

  // sums[c][r] = row c times row r of a; the units from `lane` on are loaded.
  template <int kRows>
  __device__ __forceinline__ void Multiply(const __nv_bfloat16* a, int64_t a_stride, int rows,
                                           float (&sums)[kCount][kRows]) {
    constexpr int kTogether = 4 / kRows;  // loads of a, lest each waits for the one before
    const int lane = threadIdx.x % 32;
    for (int first = lane; first < units; first += 32 * kHeld) {
      if (first != lane) Load(first);
#pragma unroll
      for (int i = 0; i < kHeld; i += kTogether) {
        uint4 x[kTogether][kRows];
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            x[j][r] = LoadUnit(a + r * a_stride, first + 32 * (i + j), r < rows ? units : 0);
          }
        }
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCount; ++c) AddProducts(sums[c][r], x[j][r], held[c][i + j]);
          }
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[c][r] = WarpSum(sums[c][r]);
    }
  }
};

}  // namespace moebius::kernels::cuda
