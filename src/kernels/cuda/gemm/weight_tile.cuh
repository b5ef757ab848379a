// Sixteen rows of weights times up to eight rows of inputs on the tensor cores, as products of few
// rows need them: reading the weights is all the work, so each lane loads its share of them
// straight into the registers that the tensor cores read, several pieces ahead. The order of k
// inside a product is free, so weights and inputs are taken as they lie.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/ptx/mma.cuh"

namespace moebius::kernels::cuda {

using moebius::cuda::ptx::MultiplyAdd;

constexpr int kTileRows = 16;      // of weights: 8 and 8; gated, 8 of the gate and their 8 of up
constexpr int kMaxTileInputs = 8;  // rows
constexpr int kPieceBytes = 128;   // of each row of weights: what a warp loads at a time
constexpr int kPiecesAhead = 3;    // 6 KB a warp, 96 KB a multiprocessor

// 16 bytes of weights that no other warp needs.
__device__ __forceinline__ uint4 LoadWeights(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

// Weights in units of 16 bytes, a lane's of two rows with its inputs of the same k.
struct Bf16Unit {
  static constexpr int kElements = 8;
  static constexpr bool kHasScales = false;

  static __device__ __forceinline__ void Add(float (&sums)[4], const uint4& low, const uint4& high,
                                             const uint4 (&x)[1]) {
    MultiplyAdd(sums, {low.x, high.x, low.y, high.y}, x[0].x, x[0].y);
    MultiplyAdd(sums, {low.z, high.z, low.w, high.w}, x[0].z, x[0].w);
  }
};

// With a scale for each block of 128 rows and 128 columns: of a piece. A NaN's code counts as 480.
struct E4m3Unit {
  static constexpr int kElements = 16;
  static constexpr bool kHasScales = true;

  // Bytes 0 and 2 of four codes, then bytes 1 and 3, as bfloat16: the bits of a code in the places
  // of bfloat16's are the number times 2^-120, subnormal ones too.
  static __device__ __forceinline__ uint32_t Even(uint32_t codes) {
    return Scaled(((codes << 4) & 0x07f007f0u) | ((codes << 8) & 0x80008000u));
  }
  static __device__ __forceinline__ uint32_t Odd(uint32_t codes) {
    return Scaled(((codes >> 4) & 0x07f007f0u) | (codes & 0x80008000u));
  }
  static __device__ __forceinline__ uint32_t Scaled(uint32_t pair) {
    uint32_t scaled;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(scaled) : "r"(pair), "r"(0x7b807b80u));  // 2^120
    return scaled;
  }

  static __device__ __forceinline__ void Add(float (&sums)[4], uint32_t low, uint32_t high,
                                             uint32_t x01, uint32_t x23) {
    MultiplyAdd(sums, {Even(low), Even(high), Odd(low), Odd(high)}, __byte_perm(x01, x23, 0x5410),
                __byte_perm(x01, x23, 0x7632));
  }
  static __device__ __forceinline__ void Add(float (&sums)[4], const uint4& low, const uint4& high,
                                             const uint4 (&x)[2]) {
    Add(sums, low.x, high.x, x[0].x, x[0].y);
    Add(sums, low.y, high.y, x[0].z, x[0].w);
    Add(sums, low.z, high.z, x[1].x, x[1].y);
    Add(sums, low.w, high.w, x[1].z, x[1].w);
  }
};

// Weights without gaps: rows of `units` units, and (fp8) the scales of their blocks.
struct WeightRows {
  const void* data = nullptr;
  const float* scales = nullptr;
  int units = 0;
};

// A warp's share of a tile: the pieces `first`, `first` + `step`, ... of its rows, so that the
// warps of a block read what lies side by side. A lane's rows are `low` and `high`, g and g + 8 of
// the tile.
template <class Unit, bool kGated>
class WeightTile {
 public:
  // Asks for the first weights.
  __device__ __forceinline__ WeightTile(const WeightRows& w, int64_t low, int64_t high, int first,
                                        int step)
      : units_(w.units - Quarter()),
        pieces_((w.units + kUnits - 1) / kUnits),
        first_(first),
        step_(step) {
    const int64_t rows[2] = {low, high};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      row_[r] = static_cast<const uint4*>(w.data) + rows[r] * w.units + Quarter();
      if constexpr (Unit::kHasScales) scales_[r] = w.scales + rows[r] / 128 * pieces_;
    }
#pragma unroll
    for (int i = 0; i < kPiecesAhead; ++i) Load(first_ + i * step_, held_[i]);
  }

  // sums += the tile times `rows` rows of a: lane 4 g + t has those of weights g and inputs 2 t,
  // 2 t + 1, then of weights g + 8.
  __device__ __forceinline__ void Multiply(const __nv_bfloat16* a, int64_t a_stride, int rows,
                                           float (&sums)[4]) {
    const int row = threadIdx.x % 32 / 4;
    const auto* x = reinterpret_cast<const uint4*>(a + (row < rows ? row : 0) * a_stride) +
                    Quarter() * kInputLoads;
    const int units = row < rows ? units_ : 0;
    Inputs inputs = LoadInputs(x, units, first_ * kUnits);
    for (int begin = first_; begin < pieces_; begin += kPiecesAhead * step_) {
#pragma unroll
      for (int i = 0; i < kPiecesAhead; ++i) {
        const int piece = begin + i * step_;
        if (piece >= pieces_) break;
        float block[4] = {};
#pragma unroll
        for (int load = 0; load < kLoads; ++load) {
          const Inputs now = inputs;
          const int next =
              load + 1 < kLoads ? piece * kUnits + 4 * (load + 1) : (piece + step_) * kUnits;
          inputs = LoadInputs(x, units, next);
          Unit::Add(Unit::kHasScales ? block : sums, held_[i].units[load][0],
                    held_[i].units[load][1], now.loads);
        }
        if constexpr (Unit::kHasScales) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sums[j] = fmaf(block[j], held_[i].scale[kGated ? j / 2 : 0], sums[j]);
          }
        }
        Load(piece + kPiecesAhead * step_, held_[i]);
      }
    }
  }

 private:
  static constexpr int kUnits = kPieceBytes / 16;          // of a row, in a piece
  static constexpr int kInputLoads = Unit::kElements / 8;  // of 16 bytes, for a unit
  static constexpr int kLoads = kUnits / 4;                // of a lane, for a row of a piece

  struct Weights {
    uint4 units[kLoads][2];
    float scale[2];
  };
  struct Inputs {
    uint4 loads[kInputLoads];
  };

  // Of the four units of a load of a row, this lane's.
  static __device__ __forceinline__ int Quarter() { return threadIdx.x % 4; }
  // What lies past a row counts as zero.
  __device__ __forceinline__ void Load(int piece, Weights& weights) const {
    const int unit = piece * kUnits;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4* at = row_[r] + unit;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        weights.units[i][r] =
            unit < units_ - 4 * i ? LoadWeights(at + 4 * i) : make_uint4(0, 0, 0, 0);
      }
    }
    if constexpr (Unit::kHasScales) {
      const bool is_there = piece < pieces_;
      weights.scale[0] = is_there ? __ldg(scales_[0] + piece) : 0;
      if constexpr (kGated) weights.scale[1] = is_there ? __ldg(scales_[1] + piece) : 0;
    }
  }
  static __device__ __forceinline__ Inputs LoadInputs(const uint4* x, int units, int unit) {
    Inputs inputs;
#pragma unroll
    for (int i = 0; i < kInputLoads; ++i) {
      inputs.loads[i] = unit < units ? x[unit * kInputLoads + i] : make_uint4(0, 0, 0, 0);
    }
    return inputs;
  }

  const uint4* row_[2];  // from the lane's first unit on
  const float* scales_[2];
  int units_;  // of a row, from the lane's first on
  int pieces_;
  int first_;
  int step_;
  Weights held_[kPiecesAhead];
};

}  // namespace moebius::kernels::cuda
