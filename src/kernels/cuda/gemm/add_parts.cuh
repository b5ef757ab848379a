// Two blocks that share a tile, each the sums over one half of K: warp by warp, the
// first to be done leaves its sums in device memory, the other adds them to its own and stores. Of
// two numbers the order does not matter, so the bits do not depend on who was first.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/gemm/pipeline.cuh"
#include "kernels/cuda/ptx/sync.cuh"

namespace moebius::cuda {

// A warp's counter: nobody is done; one is, and writes; its sums are there.
enum PartState : int32_t { kNone = 0, kWriting = 1, kWritten = 2 };

// The number of this warp's part of the tile, the same in both blocks.
template <class T>
__device__ __forceinline__ int WarpPlace(const GroupedGemmParams& p, const TilePlace& tile) {
  const int across = (p.n + T::kTile.weight_rows - 1) / T::kTile.weight_rows;
  const int block = tile.row / T::kTile.token_rows * across + tile.weight_tile;
  return block * (T::kConsumerThreads / 32) + static_cast<int>(threadIdx.x / 32);
}

// Calls visit(i, four sums) for all of the active waves.
template <class T, int kActive, typename Visit>
__device__ __forceinline__ void ForFours(float (&sums)[T::kWaves][T::kColumns / 2],
                                         const Visit& visit) {
#pragma unroll
  for (int wave = 0; wave < kActive; ++wave) {
#pragma unroll
    for (int i = 0; i < T::kColumns / 8; ++i) {
      visit(wave * (T::kColumns / 8) + i, sums[wave] + 4 * i);
    }
  }
}

// Whether this warp has the sums over all of K now, and so stores them.
template <class T, int kActive>
__device__ __forceinline__ bool AddOtherPart(const GroupedGemmParams& p, const TilePlace& tile,
                                             float (&sums)[T::kWaves][T::kColumns / 2]) {
  if constexpr (T::kParts == 1) return true;
  const int lane = threadIdx.x % 32;
  const int place = WarpPlace<T>(p, tile);
  int32_t* state = p.arrivals + place;
  float4* left = p.partials + int64_t{place} * (T::kWaves * T::kColumns / 8 * 32) + lane;
  int before = 0;
  if (lane == 0) before = atomicCAS(state, kNone, kWriting);
  const bool is_first = ptx::WarpUniform(before) == kNone;
  if (!is_first && lane == 0) {
    while (ptx::LoadAcquire(state) != kWritten) {
    }
  }
  __syncwarp();
  if (is_first) {
    ForFours<T, kActive>(sums, [&](int i, float* own) {
      __stcg(left + i * 32, make_float4(own[0], own[1], own[2], own[3]));
    });
  } else {
    ForFours<T, kActive>(sums, [&](int i, float* own) {
      const float4 other = __ldcg(left + i * 32);
      own[0] += other.x;
      own[1] += other.y;
      own[2] += other.z;
      own[3] += other.w;
    });
  }
  __syncwarp();
  if (lane == 0) ptx::StoreRelease(state, is_first ? kWritten : kNone);
  return !is_first;
}

}  // namespace moebius::cuda
