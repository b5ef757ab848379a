// Shared-memory barriers (PTX mbarrier): how the copy engine tells threads that a tile has arrived,
// and how threads tell the producer that a tile's room is free. Device code only. A barrier lives
// in shared memory and is 8 bytes.
#pragma once

#include <cstdint>

namespace moebius::cuda::ptx {

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}

// Makes initialised barriers visible to the copy engine and to the other blocks of the cluster.
__device__ __forceinline__ void BarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// One arrival that also announces `bytes` still to come from the copy engine in this phase.
__device__ __forceinline__ void BarrierArriveExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}

__device__ __forceinline__ void BarrierArrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

// Arrives at the barrier that stands at the same place in block `rank` of this cluster. Orders
// reads of shared memory as far as the copy engine's next write needs; ordering of a cluster's
// ordinary writes (release.cluster) would cost a fence.
__device__ __forceinline__ void BarrierArriveRemote(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

__device__ __forceinline__ bool BarrierTryWait(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(done)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

// Waits until the phase of `parity` is over. No wait is without a bound: a pipeline that has lost
// its partner ends the kernel with an error instead of holding the GPU.
__device__ __forceinline__ void BarrierWait(uint64_t* barrier, uint32_t parity) {
  constexpr uint32_t kMaxTries = 1u << 24;
  for (uint32_t tries = 0; !BarrierTryWait(barrier, parity); ++tries) {
    if (tries == kMaxTries) {
      __trap();
    }
  }
}

}  // namespace moebius::cuda::ptx
