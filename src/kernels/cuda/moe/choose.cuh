// The choice of a slot for each of a row's experts (ops.h: ChooseSlotsArgs), by the warp that has
// the row: lane j has the j-th expert. The same choice as ref/choose_slots.cc, bit for bit.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/moe/moe.h"
#include "kernels/random.h"

namespace moebius::kernels::cuda {

// Of an expert, a token and where it stands: rows that differ in any take different copies.
__device__ __forceinline__ uint32_t HashOfRow(int32_t token, int32_t position, int32_t expert) {
  const uint64_t row = MixBits((static_cast<uint64_t>(static_cast<uint32_t>(token)) << 32) ^
                               static_cast<uint64_t>(position));
  return static_cast<uint32_t>(MixBits(row + static_cast<uint64_t>(expert)) >> 32);
}

// One copy and copies at home first; then, expert after expert, what is on the way, else the hash.
// Lanes from k on take part without an expert.
__device__ inline int32_t ChooseCopy(const SlotChoiceLaunch& p, int64_t row, int32_t token, int k,
                                     int expert) {
  const int lane = threadIdx.x % 32;
  int32_t slot = -1;
  if (lane < k) {
    const int begin = p.copies_begin[expert];
    const int end = p.copies_begin[expert + 1];
    if (end - begin == 1) slot = p.copies[begin];
    for (int c = begin; c < end && slot < 0; ++c) {
      if (p.copies[c] / p.slots_per_rank == p.home) slot = p.copies[c];
    }
  }
  for (uint32_t open = __ballot_sync(~0u, lane < k && slot < 0); open != 0; open &= open - 1) {
    const int j = __ffs(open) - 1;
    const int of = __shfl_sync(~0u, expert, j);
    const int begin = p.copies_begin[of];
    const int count = p.copies_begin[of + 1] - begin;
    const uint64_t hash = HashOfRow(token, p.positions[row], of);
    const auto wished = static_cast<int>(hash * static_cast<uint64_t>(count) >> 32);
    int32_t chosen = p.copies[begin + wished];
    for (int i = 0; i < count; ++i) {
      const int32_t copy = p.copies[begin + (wished + i) % count];
      if (!__any_sync(~0u, slot >= 0 && slot / p.slots_per_rank == copy / p.slots_per_rank)) {
        continue;
      }
      chosen = copy;
      break;
    }
    if (lane == j) slot = chosen;
  }
  return slot;
}

// token: tokens[row]. All lanes of the warp call; returns this one's slot, or -1.
__device__ __forceinline__ int32_t PutSlots(const SlotChoiceLaunch& p, int64_t row, int32_t token,
                                            int k, int expert) {
  const int lane = threadIdx.x % 32;
  int32_t slot = -1;
  const bool is_row = token >= 0;
  if (is_row && p.copies_begin != nullptr) {
    slot = ChooseCopy(p, row, token, k, expert);
  } else if (is_row && lane < k) {
    slot = p.first_slot[expert];
  }
  if (lane >= k) return -1;
  p.slots[row * k + lane] = slot;
  if (!is_row) return -1;
  if (p.counts != nullptr) {
    atomicAdd(reinterpret_cast<unsigned long long*>(p.counts + expert), 1ull);
  }
  if (p.prompt_counts != nullptr && row >= p.num_decodes) {
    atomicAdd(reinterpret_cast<unsigned long long*>(p.prompt_counts + expert), 1ull);
  }
  return slot;
}

}  // namespace moebius::kernels::cuda
