// What producer and consumers of a grouped GEMM block share: the kernel's parameters, the layout of
// its shared memory, the ring of stages, and where a tile's weights are.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/gemm/tile_form.cuh"
#include "kernels/cuda/gemm/tile_walk.cuh"
#include "kernels/cuda/gemm/traits.cuh"

namespace moebius::cuda {

struct GroupedGemmParams {
  CUtensorMap weights;     // [num_slots * n, k]
  CUtensorMap rows;        // [capacity, k]
  CUtensorMap row_scales;  // [k / 128, capacity], fp8 only
  const int32_t* offsets;  // null: one group of num_rows
  const int32_t* slots;    // null: group g uses slot g
  const float* weight_scales;
  __nv_bfloat16* out;
  int num_rows;
  int num_groups;
  int num_slots;
  int n;
  int k;
  int width;
  bool stream;
  bool wide;      // groups' last rows, where they fit, in wide tiles
  int32_t* next;  // as in GroupedGemmArgs
  float4* partials;
  int32_t* arrivals;
};

// The dynamic shared memory of one block: tiles first (the swizzle wants 1024-byte alignment), then
// scales, staging and barriers.
template <class T>
struct SharedLayout {
  uint8_t* base;
  // A stage's weights and tokens lie together where their sizes differ from tile to tile, else all
  // stages' weights before all tokens.
  __device__ uint8_t* Weights(int stage) const {
    return base + stage * (T::kWeightBytes + (T::kWide ? T::kTokenBytes : 0));
  }
  __device__ uint8_t* Tokens(int stage, TileForm<T> form) const {
    return T::kWide ? Weights(stage) + form.WeightBoxes() * T::kWeightBytes
                    : base + T::kStages * T::kWeightBytes + stage * T::kTokenBytes;
  }
  __device__ float* Scales(int stage) const {
    return reinterpret_cast<float*>(base + T::kStages * (T::kWeightBytes + T::kTokenBytes) +
                                    stage * T::kScaleBytes);
  }
  __device__ uint8_t* Staging(int warp) const {
    return base + T::kStages * (T::kWeightBytes + T::kTokenBytes + T::kScaleBytes) +
           warp * tuning::StagingBytesPerWarp(T::kTile);
  }
  // Of the block's n-th tile: which comes after it, at n % kNextTiles.
  __device__ int32_t* Next() const {
    return reinterpret_cast<int32_t*>(Full()) - tuning::kNextTiles;
  }
  __device__ uint64_t* Full() const {
    return reinterpret_cast<uint64_t*>(base + tuning::SharedBytes(T::kFormat, T::kTile) -
                                       tuning::kMaxStages * 16);
  }
  __device__ uint64_t* Empty() const { return Full() + tuning::kMaxStages; }
};

// A place in the ring and the parity of the barrier phase that belongs to it.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <class T>
__device__ TileWalk WalkOf(const GroupedGemmParams& p) {
  constexpr int kRows = T::kTile.weight_rows * T::kCluster;
  return TileWalk(p.offsets, p.num_rows, T::kParts > 1 ? T::kParts : p.num_groups,
                  (p.n + kRows - 1) / kRows, T::kTile.token_rows, p.width, T::kWide && p.wide);
}

// The tiles with few rows left are wide (TileWalk).
template <class T>
__device__ TileForm<T> FormOf(const GroupedGemmParams& p, const TilePlace& tile) {
  return {T::kWide && p.wide && tile.row_end - tile.row <= T::kTile.token_rows / 2};
}

// Tiles in parts come once for each: what the walk calls their group is the part.
template <class T>
__device__ int SlotOf(const GroupedGemmParams& p, const TilePlace& tile) {
  const int group = T::kParts > 1 ? 0 : tile.group;
  return p.slots == nullptr ? group : p.slots[group];
}
// What a tile is summed over.
template <class T>
__device__ int PartK(const GroupedGemmParams& p) {
  return p.k / T::kParts;
}
template <class T>
__device__ int FirstK(const GroupedGemmParams& p, const TilePlace& tile) {
  return T::kParts > 1 ? tile.group * PartK<T>(p) : 0;
}

}  // namespace moebius::cuda
