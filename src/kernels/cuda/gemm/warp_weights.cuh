// Rows of weights that a warp holds in registers and multiplies by rows of inputs: what products of
// a few rows are made of. Weights come in units of 16 bytes, each multiplied in float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {

constexpr int kInputsOfUnit = 8;  // bfloat16 inputs of a load of 16 bytes

// Zero past the row's units.
__device__ __forceinline__ uint4 LoadUnit(const __nv_bfloat16* row, int unit, int units) {
  return unit < units ? reinterpret_cast<const uint4*>(row)[unit] : make_uint4(0, 0, 0, 0);
}

__device__ __forceinline__ float2 WidenPair(uint32_t bf16_pair) {
  return {__uint_as_float(bf16_pair << 16), __uint_as_float(bf16_pair & 0xffff0000u)};
}

struct Bf16Unit {
  static constexpr int kElements = 8;
  static constexpr bool kHasScales = false;

  // sum + x times the weights w.
  static __device__ __forceinline__ float Add(float sum, const uint4 (&x)[1], const uint4& w) {
    const uint32_t a[4] = {x[0].x, x[0].y, x[0].z, x[0].w};
    const uint32_t b[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 input = WidenPair(a[i]);
      const float2 weight = WidenPair(b[i]);
      sum = fmaf(input.x, weight.x, sum);
      sum = fmaf(input.y, weight.y, sum);
    }
    return sum;
  }
};

// With a scale for each block of 128 rows and 128 columns.
struct E4m3Unit {
  static constexpr int kElements = 16;
  static constexpr bool kHasScales = true;

  static __device__ __forceinline__ float Add(float sum, const uint4 (&x)[2], const uint4& w) {
    const uint32_t a[8] = {x[0].x, x[0].y, x[0].z, x[0].w, x[1].x, x[1].y, x[1].z, x[1].w};
    const uint32_t codes[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      uint32_t halves;
      const auto pair = static_cast<uint16_t>(codes[i / 2] >> (16 * (i % 2)));
      asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
      const float2 weight = __half22float2(reinterpret_cast<const __half2&>(halves));
      const float2 input = WidenPair(a[i]);
      sum = fmaf(input.x, weight.x, sum);
      sum = fmaf(input.y, weight.y, sum);
    }
    return sum;
  }
};

// Weights without gaps: rows of `units` units, and (fp8) the scales of their blocks.
struct WeightRows {
  const void* data = nullptr;
  const float* scales = nullptr;
  int units = 0;
};

// The rows that a warp multiplies by, one or two (gate and up); lane l has units l, l + 32, ..,
// kHeld of each row at a time. What lies past a row counts as zero.
template <class Unit, int kCount, int kHeld>
struct WarpWeights {
  static constexpr int kLoads = Unit::kElements / kInputsOfUnit;  // of inputs, for a unit
  static constexpr int kUnitsOfScale = 128 / Unit::kElements;

  const uint4* row[kCount];
  const float* scales[kCount];
  int units;
  uint4 held[kCount][kHeld];

  // Row `first`, and the one `step` rows further.
  __device__ WarpWeights(const WeightRows& w, int64_t first, int64_t step) : units(w.units) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const int64_t index = first + c * step;
      row[c] = static_cast<const uint4*>(w.data) + index * units;
      if constexpr (Unit::kHasScales) {
        scales[c] = w.scales + index / 128 * (units / kUnitsOfScale);
      }
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

  // What the held unit i of row c adds to `sum` with the inputs x.
  __device__ __forceinline__ float Add(float sum, const uint4 (&x)[kLoads], int c, int i,
                                       float scale) const {
    if constexpr (!Unit::kHasScales) {
      return Unit::Add(sum, x, held[c][i]);
    } else {
      return fmaf(Unit::Add(0, x, held[c][i]), scale, sum);
    }
  }
  __device__ __forceinline__ float Scale(int c, int unit) const {
    if constexpr (!Unit::kHasScales) {
      return 1;
    } else {
      return unit < units ? __ldg(scales[c] + unit / kUnitsOfScale) : 0;
    }
  }

  // sums[c][r] = row c times row r of a; the units from `lane` on are loaded.
  template <int kRows>
  __device__ __forceinline__ void Multiply(const __nv_bfloat16* a, int64_t a_stride, int rows,
                                           float (&sums)[kCount][kRows]) {
    // Inputs of so many units are asked for together, lest each waits for the one before.
    constexpr int kTogether = 4 / (kRows * kLoads);
    static_assert(kTogether > 0 && kHeld % kTogether == 0);
    const int lane = threadIdx.x % 32;
    for (int first = lane; first < units; first += 32 * kHeld) {
      if (first != lane) Load(first);
#pragma unroll
      for (int i = 0; i < kHeld; i += kTogether) {
        uint4 x[kTogether][kRows][kLoads];
        float scale[kTogether][kCount];
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
          const int unit = first + 32 * (i + j);
#pragma unroll
          for (int c = 0; c < kCount; ++c) scale[j][c] = Scale(c, unit);
#pragma unroll
          for (int load = 0; load < kRows * kLoads; ++load) {
            const int r = load / kLoads;
            x[j][r][load % kLoads] = LoadUnit(a + r * a_stride, unit * kLoads + load % kLoads,
                                              r < rows ? units * kLoads : 0);
          }
        }
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCount; ++c) {
              sums[c][r] = Add(sums[c][r], x[j][r], c, i + j, scale[j][c]);
            }
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
