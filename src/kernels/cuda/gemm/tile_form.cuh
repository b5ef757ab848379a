// The two forms of a tile, and what follows from them.
//
// Plain: the traits' rows. Waves of 64 token rows go to the warpgroups in turns, so that a group's
// last rows keep both busy, and all multiply the same weights.
// Wide (T::kWide only), for a group's last rows where they fill at most half of a plain tile: half
// as many token rows, which every warpgroup takes, by twice as many weights, half of them to a
// warpgroup. So a stage brings the same bytes and a warpgroup multiplies as much, in half as many
// tiles.
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm/tile_walk.cuh"
#include "kernels/cuda/gemm/traits.cuh"

namespace moebius::cuda {

template <class T>
struct TileForm {
  bool wide = false;

  // Of a stage, each of T::kTile.weight_rows; tokens lie behind them.
  __device__ int WeightBoxes() const { return wide ? 2 : 1; }

  // First weight row, within its slot, of a block's part of a tile.
  __device__ int WeightRow(const TilePlace& tile, uint32_t rank) const {
    return (tile.weight_tile * T::kCluster + rank) * WeightBoxes() * T::kTile.weight_rows;
  }

  // Within a block's part of a tile: the first of the weights that are a warpgroup's columns, and
  // the first token row of its waves.
  __device__ int ColumnsOf(int warpgroup) const {
    return wide ? warpgroup * T::kTile.weight_rows : 0;
  }
  __device__ int RowOf(int wave, int warpgroup) const {
    return wide ? wave * 64 : (wave * T::kConsumers + warpgroup) * 64;
  }
};

}  // namespace moebius::cuda
