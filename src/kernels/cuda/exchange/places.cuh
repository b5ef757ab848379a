// Where the rows of each slot begin, from the counts that all sources send. Device code only.
#pragma once

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {

template <int kTeams>
struct ReceiveShared {
  int tokens[kMaxRanks];             // of each source
  int place[kMaxSlots];              // [source][slot]: of ordinal 0
  int begin[kMaxSlots + 1];          // of each slot
  int32_t places[kTeams][kMaxTopK];  // of the row that a team copies; those it has, first
  int num_places[kTeams];
};

// False, in all threads, when the group was aborted.
template <int kThreads, class Shared>
__device__ bool WaitForCounts(const Endpoint& e, uint32_t sequence, Shared& shared) {
  const Shape& s = e.group.shape;
  const int words = 1 + s.slots_per_rank;
  bool failed = false;
  for (int i = threadIdx.x; i < s.num_ranks * words; i += kThreads) {
    const int source = i / words;
    const int slot = i % words - 1;
    uint32_t count = 0;
    failed |= !WaitForFlag(e.waiter(), e.counts(e.group.rank, 0) + i, sequence, Phase::kDispatch,
                           source, &count);
    int* to = slot < 0 ? &shared.tokens[source] : &shared.place[source * s.slots_per_rank + slot];
    *to = static_cast<int>(count);
  }
  return __syncthreads_or(failed) == 0;
}

// Where each (source, slot) begins, from the counts. Ends with a barrier.
template <int kThreads, class Shared>
__device__ void FindPlaces(const Shape& s, Shared& shared) {
  const int num_slots = s.slots_per_rank;
  for (int slot = threadIdx.x; slot < num_slots; slot += kThreads) {
    int sum = 0;
    for (int r = 0; r < s.num_ranks; ++r) {
      int& at = shared.place[r * num_slots + slot];
      const int count = at;
      at = sum;
      sum += count;
    }
    shared.begin[slot + 1] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    int carry = 0;
    if (threadIdx.x == 0) shared.begin[0] = 0;
    for (int base = 0; base < num_slots; base += 32) {
      const int slot = base + static_cast<int>(threadIdx.x);
      int sum = slot < num_slots ? shared.begin[slot + 1] : 0;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, sum, step);
        if (static_cast<int>(threadIdx.x) >= step) sum += other;
      }
      if (slot < num_slots) shared.begin[slot + 1] = carry + sum;
      carry += __shfl_sync(~0u, sum, 31);
    }
  }
  __syncthreads();
}

}  // namespace moebius::cuda::exchange
