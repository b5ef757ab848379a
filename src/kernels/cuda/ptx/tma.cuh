// The bulk tensor copy engine (TMA): boxes of a two-dimensional tensor into shared memory. Device
// code only; one thread issues a copy. Coordinates count elements, the contiguous dimension first;
// what lies outside the tensor arrives as zero.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/ptx/mbarrier.cuh"

namespace moebius::cuda::ptx {

__device__ __forceinline__ void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// L2 policies: data read once (weights of a small batch) and data that others will read again
// (their tokens).
__device__ __forceinline__ uint64_t PolicyEvictFirst() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void LoadBox(void* destination, const CUtensorMap* map, int x, int y,
                                        uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(SharedAddress(destination)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(x), "r"(y)
      : "memory");
}

// The same under an L2 policy.
__device__ __forceinline__ void LoadBox(void* destination, const CUtensorMap* map, int x, int y,
                                        uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(SharedAddress(destination)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(x), "r"(y), "l"(policy)
      : "memory");
}

// The same box into the same place of every block of the cluster named in `block_mask`, each one's
// own barrier told. (Cluster multicast stays inside one GPU.)
__device__ __forceinline__ void LoadBoxMulticast(void* destination, const CUtensorMap* map, int x,
                                                 int y, uint64_t* barrier, uint16_t block_mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(SharedAddress(destination)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(x), "r"(y), "h"(block_mask)
      : "memory");
}

}  // namespace moebius::cuda::ptx
