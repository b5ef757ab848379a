// Which tile a cluster takes next: the first that nobody has, so that all work on neighbouring
// tiles, whose operands they share in the L2 cache, and end together though tiles differ. A cluster
// begins with the tile of its number; while a tile is loaded, its first block asks a counter in
// device memory for the one after it and sends the answer to all its blocks, with a stage of that
// tile. Device code.
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm/pipeline.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/sync.cuh"

namespace moebius::cuda {

// The loading thread's side, of one tile after the other.
template <class T>
struct NextTile {
  const GroupedGemmParams& p;
  const SharedLayout<T>& shared;
  uint32_t rank;
  int num_clusters;
  // Late, for then it is known best who will be free, but so that nobody waits for it: the stage
  // that brings it has arrived before the next tile's first one can be loaded. (With no more steps
  // than stages everybody waits.)
  int send_step = 0;
  int ask_step = 0;
  uint32_t num_tiles = 0;  // before this one
  int asked = 0;
  int send_stage = 0;
  uint32_t send_parity = 0;

  __device__ NextTile(const GroupedGemmParams& params, const SharedLayout<T>& layout,
                      uint32_t block_rank, int clusters)
      : p(params),
        shared(layout),
        rank(block_rank),
        num_clusters(clusters),
        send_step(max(0, params.k / T::kElementsOfK - T::kStages)),
        ask_step(max(0, params.k / T::kElementsOfK - 2 * T::kStages)) {}

  // What a step's stage brings besides its operands.
  __device__ int Bytes(int step) const { return step == send_step ? 4 : 0; }

  // Before a step's loads, when its stage is free and its barrier expects them.
  __device__ void Advance(int step, int tile, const RingPlace<T::kStages>& ring) {
    if (rank == 0 && step == ask_step) {
      asked = p.next != nullptr ? atomicAdd(p.next, 1) : tile;
    }
    if (step != send_step) return;
    send_stage = ring.stage;
    send_parity = ring.parity;
    if (rank != 0) return;
    for (uint32_t block = 0; block < T::kCluster; ++block) {
      ptx::StoreAsync(shared.Next() + num_tiles % tuning::kNextTiles, num_clusters + asked,
                      shared.Full() + ring.stage, block);
    }
  }

  // After a tile's last step.
  __device__ int Take() {
    ptx::BarrierWait(shared.Full() + send_stage, send_parity);
    return shared.Next()[num_tiles++ % tuning::kNextTiles];
  }

  // After the last tile. Every tile of the launch asked once; the last answer leaves the counter as
  // it was.
  __device__ void End(int all_tiles) const {
    if (rank == 0 && p.next != nullptr && num_tiles > 0 && asked == all_tiles - 1) *p.next = 0;
  }
};

}  // namespace moebius::cuda
