// Sixteen rows of weights for up to eight rows of inputs on the tensor cores, as products of few
// rows need them: reading the weights is all the work, so each lane loads its share of them
// straight into the registers that the tensor cores read, several pieces ahead. The order of k
// inside a product is free, so weights and inputs are taken as they lie.
#pragma once

#include <cstdint>

namespace moebius::kernels::cuda {

constexpr int kTileRows = 16;      // of weights: 8 and 8; gated, 8 of the gate and their 8 of up
constexpr int kMaxTileInputs = 8;  // rows
constexpr int kPieceBytes = 128;   // of each row of weights: what a warp loads at a time
constexpr int kPiecesAhead = 3;    // 6 KB a warp, 96 KB a multiprocessor
constexpr int kPieceUnits = kPieceBytes / 16;  // of a row
constexpr int kPieceLoads = kPieceUnits / 4;   // of a lane, for a row

// 16 bytes of weights that no other warp needs.
__device__ __forceinline__ uint4 LoadWeights(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

// Weights without gaps: rows of `units` units of 16 bytes, and (fp8) the scales of their blocks of
// 128 rows and 128 columns, a piece.
struct WeightRows {
  const void* data = nullptr;
  const float* scales = nullptr;
  int units = 0;
};

// A lane's part of a piece: of the tile's rows g and g + 8 the units 4 i + t of the piece's.
struct WeightPiece {
  uint4 low[kPieceLoads];
  uint4 high[kPieceLoads];
  float scales[2];
};

// A warp's share of a tile: the pieces `first`, `first` + `step`, ... of its rows, so that the
// warps of a block read what lies side by side. A lane's rows are `low` and `high`, g and g + 8 of
// the tile.
template <bool kScaled, bool kGated>
class WeightTile {
 public:
  // Asks for the first weights.
  __device__ __forceinline__ WeightTile(const WeightRows& w, int64_t low, int64_t high, int first,
                                        int step)
      : units_(w.units - Quarter()),
        pieces_((w.units + kPieceUnits - 1) / kPieceUnits),
        first_(first),
        step_(step) {
    const auto* units = static_cast<const uint4*>(w.data) + Quarter();
    low_ = units + low * w.units;
    high_ = units + high * w.units;
    if constexpr (kScaled) {
      scales_[0] = w.scales + low / 128 * pieces_;
      scales_[1] = w.scales + high / 128 * pieces_;
    }
#pragma unroll
    for (int i = 0; i < kPiecesAhead; ++i) Load(first_ + i * step_, held_[i]);
  }

  __device__ __forceinline__ int pieces() const { return pieces_; }  // of all warps
  __device__ __forceinline__ int first() const { return first_; }
  __device__ __forceinline__ int step() const { return step_; }

  // use(which, piece) for each of the warp's.
  template <class Use>
  __device__ __forceinline__ void ForEachPiece(Use&& use) {
    for (int begin = first_; begin < pieces_; begin += kPiecesAhead * step_) {
#pragma unroll
      for (int i = 0; i < kPiecesAhead; ++i) {
        const int piece = begin + i * step_;
        if (piece >= pieces_) break;
        use(piece, held_[i]);
        Load(piece + kPiecesAhead * step_, held_[i]);
      }
    }
  }

 private:
  // Of the four units of a load of a row, this lane's.
  static __device__ __forceinline__ int Quarter() { return threadIdx.x % 4; }
  // What lies past a row counts as zero.
  __device__ __forceinline__ void Load(int piece, WeightPiece& weights) const {
    const int unit = piece * kPieceUnits;
#pragma unroll
    for (int i = 0; i < kPieceLoads; ++i) {
      const bool is_there = unit < units_ - 4 * i;
      const uint4 zero = make_uint4(0, 0, 0, 0);
      weights.low[i] = is_there ? LoadWeights(low_ + unit + 4 * i) : zero;
      weights.high[i] = is_there ? LoadWeights(high_ + unit + 4 * i) : zero;
    }
    if constexpr (kScaled) {
      const bool is_there = piece < pieces_;
      weights.scales[0] = is_there ? __ldg(scales_[0] + piece) : 0;
      // The rows of a tile that is not gated are of one block.
      if constexpr (kGated) weights.scales[1] = is_there ? __ldg(scales_[1] + piece) : 0;
    }
  }

  const uint4* low_;  // from the lane's first unit on
  const uint4* high_;
  const float* scales_[2];
  int units_;  // of a row, from the lane's first on
  int pieces_;
  int first_;
  int step_;
  WeightPiece held_[kPiecesAhead];
};

}  // namespace moebius::kernels::cuda
