// Flags, bounded waits and the abort word on the device. Device code only.
//
// Order: rows are plain stores; a barrier of the threads that wrote them comes before the release
// store that raises the flag. A waiter polls with acquire loads; a barrier comes before its
// neighbours read what the flag stands for. Memory that peers write is read by loads that the
// compiler may not move or cache.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/exchange/exchange.h"

namespace moebius::cuda::exchange {

__device__ __forceinline__ uint64_t LoadAcquire(const uint64_t* p) {
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(p) : "memory");
  return value;
}
__device__ __forceinline__ void StoreRelease(uint64_t* p, uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
}
__device__ __forceinline__ void StoreRelaxed(uint64_t* p, uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
}
__device__ __forceinline__ void FenceSystem() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }
__device__ __forceinline__ uint32_t LoadRelaxed(const void* p) {
  uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
// 16 bytes that a peer wrote before a flag that this thread's block has seen.
__device__ __forceinline__ uint4 LoadArrived(const void* p) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}
__device__ __forceinline__ uint64_t Nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
  return now;
}

// Waits for the kernels before this one in its stream (which may still run if this one was launched
// early), then lets the next one in: so whatever is older than the kernel just before one has ended
// when it starts. Every thread of every kernel calls it, most as their first statement; halves that
// receive wait for flags before.
__device__ __forceinline__ void JoinStream() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ uint32_t SequenceNumber(const Sequence& s) {
  return LoadRelaxed(s.step) * s.calls_per_step + s.call + 1;
}

__device__ __forceinline__ Signals* SignalsOf(std::byte* base) {
  return reinterpret_cast<Signals*>(base);
}

// Who waits, and whom to tell when a wait expires.
struct Waiter {
  uint32_t* abort;
  uint32_t* host_abort;
  std::byte* const* bases;  // a Signals' abort word at abort_offset of each
  int64_t abort_offset;
  int num_ranks;
  int rank;
  uint64_t limit;  // nanoseconds
};

__device__ __forceinline__ bool Aborted(const uint32_t* abort) { return LoadRelaxed(abort) != 0; }

// All writers have the same word: the one that this rank's abort word got first.
__device__ __forceinline__ void TellHost(const Waiter& w, uint32_t word) {
  if (w.host_abort == nullptr) return;
  asm volatile("st.relaxed.sys.u32 [%0], %1;" ::"l"(w.host_abort), "r"(word) : "memory");
}

// The first cause stays, here and at the peers.
inline __device__ __noinline__ void RaiseAbort(const Waiter& w, uint32_t word) {
  if (atomicCAS_system(w.abort, 0u, word) != 0) return;
  TellHost(w, word);
  for (int r = 0; r < w.num_ranks; ++r) {
    if (r != w.rank) {
      atomicCAS_system(reinterpret_cast<uint32_t*>(w.bases[r] + w.abort_offset), 0u, word);
    }
  }
  FenceSystem();
}

// True once the flag carries `sequence`, with its value; false when the group was aborted, by this
// wait or another.
__device__ __forceinline__ bool WaitForFlag(const Waiter& w, const uint64_t* flag,
                                            uint32_t sequence, Phase phase, int silent,
                                            uint32_t* value) {
  uint64_t begin = 0;
  for (uint32_t spins = 0;; ++spins) {
    const uint64_t word = LoadAcquire(flag);
    if (FlagSequence(word) == sequence) {
      *value = FlagValue(word);
      return true;
    }
    if (spins % 16 != 15) continue;
    if (const uint32_t word = LoadRelaxed(w.abort); word != 0) {
      TellHost(w, word);
      return false;
    }
    const uint64_t now = Nanoseconds();
    if (begin == 0) {
      begin = now;
    } else if (now - begin > w.limit) {
      RaiseAbort(w, AbortWord(phase, silent, w.rank));
      return false;
    }
  }
}

// All threads of every block call it once. True in all threads of the block that arrives last:
// everything that other blocks did before is then visible to it, and ordered before its releases.
__device__ __forceinline__ bool LastToArrive(uint32_t* counter) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t before;
    asm volatile("atom.acq_rel.sys.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(counter), "r"(gridDim.x - 1)
                 : "memory");
    last = before == gridDim.x - 1;
  }
  __syncthreads();
  return last;
}

// Tests: pauses the block for a time that depends on where and when it is.
__device__ __forceinline__ void TestDelay(uint32_t seed, uint32_t sequence, uint32_t where) {
  if (seed == 0) return;
  uint32_t x = seed ^ sequence * 0x9e3779b9u ^ (blockIdx.x * 64 + where) * 0x85ebca6bu;
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  x ^= x >> 16;
  if (x % 4 == 0) __nanosleep(x >> 8 & 0x3fff);
}

}  // namespace moebius::cuda::exchange
