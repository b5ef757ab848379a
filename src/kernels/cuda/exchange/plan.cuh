// Where the tokens of a chunk go, found without atomics between blocks and the same on every run: a
// token's position in a rank's region is the number of earlier tokens that went there, a pair's
// ordinal the number of earlier pairs of its slot. Every block counts what comes before its chunks
// by itself. Device code only.
#pragma once

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {

// Keys counted together: slots of all ranks, then ranks.
constexpr int kMaxKeys = kMaxSlots + kMaxRanks;

struct PlanShared {
  int earlier[kMaxKeys];     // pairs (slots) and tokens (ranks) before the chunk
  uint32_t chunk[kMaxKeys];  // tokens of the chunk, a bit each
};

__host__ __device__ constexpr int NumKeys(const Shape& s) { return s.num_slots() + s.num_ranks; }

template <int kThreads>
__device__ __forceinline__ void ClearPlan(const Shape& s, PlanShared& plan) {
  for (int i = threadIdx.x; i < NumKeys(s); i += kThreads) {
    plan.earlier[i] = 0;
    plan.chunk[i] = 0;
  }
}

// The slots of one token, all asked for at once.
struct TokenSlots {
  int slot[kMaxTopK];

  __device__ __forceinline__ void Load(const Shape& s, const int32_t* slots, int token, int end) {
#pragma unroll
    for (int j = 0; j < kMaxTopK; ++j) {
      slot[j] = token < end && j < s.top_k ? slots[int64_t{token} * s.top_k + j] : -1;
    }
  }
  // Whole warps.
  __device__ __forceinline__ void Count(const Shape& s, bool exists, int* earlier) const {
    uint64_t ranks = 0;
#pragma unroll
    for (int j = 0; j < kMaxTopK; ++j) {
      if (j < s.top_k && exists && slot[j] >= 0) {
        atomicAdd(&earlier[slot[j]], 1);
        ranks |= uint64_t{1} << (slot[j] / s.slots_per_rank);
      }
    }
    for (int r = 0; r < s.num_ranks; ++r) {
      const int count = __popc(__ballot_sync(~0u, static_cast<int>(ranks >> r & 1)));
      if (threadIdx.x % 32 == 0 && count > 0) atomicAdd(&earlier[s.num_slots() + r], count);
    }
  }
};

// earlier += tokens [begin, end); `first` holds the slots of token begin + threadIdx.x.
template <int kThreads>
__device__ __forceinline__ void CountTokens(const Shape& s, const int32_t* slots, int begin,
                                            int end, TokenSlots& first, int* earlier) {
  const int lane = threadIdx.x % 32;
  for (int base = begin + threadIdx.x / 32 * 32; base < end; base += kThreads) {
    if (base - begin >= kThreads) first.Load(s, slots, base + lane, end);
    first.Count(s, base + lane < end, earlier);
  }
}

// One of a token's choices, in a lane of the warp that plans the token. Lanes beyond have none.
struct Choice {
  int slot = -1;
  int rank = -1;
  bool leads = false;  // the first of the token's choices on its rank
  int ordinal = 0;
  float weight = 0;

  // Marks token `index` of the chunk; a barrier comes before Place.
  __device__ __forceinline__ void Mark(const Shape& s, int index, PlanShared& plan) {
    const int lane = threadIdx.x % 32;
    rank = slot >= 0 ? slot / s.slots_per_rank : -1;
    const uint32_t same = __match_any_sync(~0u, rank);
    leads = rank >= 0 && (same & ((1u << lane) - 1)) == 0;
    if (slot >= 0) atomicOr(&plan.chunk[slot], 1u << index);
    if (leads) atomicOr(&plan.chunk[s.num_slots() + rank], 1u << index);
  }
  // Fills routes [k], those that are none last; returns how many there are. A barrier comes before
  // Unmark.
  __device__ __forceinline__ int Place(const Shape& s, int index, const PlanShared& plan,
                                       int32_t* routes) {
    const int lane = threadIdx.x % 32;
    const auto before = [&](int key) {
      return plan.earlier[key] + __popc(plan.chunk[key] & ((1u << index) - 1));
    };
    if (slot >= 0) ordinal = before(slot);
    const uint64_t bit = leads ? uint64_t{1} << rank : 0;
    const uint64_t ranks = uint64_t{__reduce_or_sync(~0u, static_cast<uint32_t>(bit >> 32))} << 32 |
                           __reduce_or_sync(~0u, static_cast<uint32_t>(bit));
    if (lane < s.top_k) routes[lane] = kNoRoute;
    __syncwarp();
    if (leads) routes[__popcll(ranks & (bit - 1))] = Route(rank, before(s.num_slots() + rank));
    __syncwarp();
    return __popcll(ranks);
  }
  __device__ __forceinline__ void Unmark(const Shape& s, PlanShared& plan) const {
    if (slot >= 0) plan.chunk[slot] = 0;
    if (leads) plan.chunk[s.num_slots() + rank] = 0;
  }
};

}  // namespace moebius::cuda::exchange
