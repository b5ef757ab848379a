// Where each token of a block's chunk goes, found without atomics between blocks and the same on
// every run: a token's position in a rank's region is the number of earlier tokens that went there,
// a pair's ordinal the number of earlier pairs of its slot. Every block counts what comes before
// its chunk by itself. Device code only.
#pragma once

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {

// Keys counted together: slots of all ranks, then ranks.
constexpr int kMaxKeys = kMaxSlots + kMaxRanks;

struct PlanShared {
  int earlier[kMaxKeys];  // before the chunk
  int total[kMaxKeys];    // up to the end of the chunk
};

__host__ __device__ constexpr int NumKeys(const Shape& s) { return s.num_slots() + s.num_ranks; }
// Dynamic shared memory: counts of a chunk by warp and key.
__host__ __device__ constexpr size_t PlanBytes(const Shape& s, int threads) {
  return sizeof(uint16_t) * (threads / 32) * NumKeys(s);
}

// What one choice of a token means for its routes.
struct Choice {
  int slot;   // negative: none
  int rank;   // where it is the first of the token's pairs to go there; else negative
  int order;  // its place among the token's routes, those that are none last
};

__device__ __forceinline__ Choice ReadChoice(const Shape& s, const int32_t* slots, int64_t token,
                                             int j) {
  uint64_t seen = 0;
  int none_before = 0;
  Choice choice = {-1, -1, 0};
  for (int i = 0; i < s.top_k; ++i) {
    const int slot = slots[token * s.top_k + i];
    const int rank = slot >= 0 ? slot / s.slots_per_rank : -1;
    const bool first = rank >= 0 && (seen >> rank & 1) == 0;
    if (i == j) {
      choice.slot = slot;
      choice.rank = first ? rank : -1;
    }
    if (first) seen |= uint64_t{1} << rank;
    if (!first && i < j) ++none_before;
  }
  choice.order = choice.rank >= 0 ? __popcll(seen & ((uint64_t{1} << choice.rank) - 1))
                                  : __popcll(seen) + none_before;
  return choice;
}

// earlier[key] += the pairs (slots) and tokens (ranks) of tokens before `begin`.
template <int kThreads>
__device__ void CountEarlier(const Shape& s, const int32_t* slots, int begin, int* earlier) {
  const int lane = threadIdx.x % 32;
  for (int base = threadIdx.x / 32 * 32; base < begin; base += kThreads) {
    const int token = base + lane;
    uint64_t ranks = 0;
    if (token < begin) {
#pragma unroll 8
      for (int j = 0; j < s.top_k; ++j) {
        const int slot = slots[int64_t{token} * s.top_k + j];
        if (slot >= 0) {
          atomicAdd(&earlier[slot], 1);
          ranks |= uint64_t{1} << (slot / s.slots_per_rank);
        }
      }
    }
    for (int r = 0; r < s.num_ranks; ++r) {
      const int count = __popc(__ballot_sync(~0u, static_cast<int>(ranks >> r & 1)));
      if (lane == 0 && count > 0) atomicAdd(&earlier[s.num_slots() + r], count);
    }
  }
}

// A warp's share of the chunk's pairs, in order: calls visit(pair of the chunk, choice, lanes with
// the same slot, lanes with the same rank); all lanes together, pair negative for those beyond.
template <class Visit>
__device__ void ForPairs(const Shape& s, const int32_t* slots, int begin, int first, int last,
                         const Visit& visit) {
  for (int base = first; base < last; base += 32) {
    const int q = base + static_cast<int>(threadIdx.x % 32);
    Choice choice = {-1, -1, 0};
    if (q < last) {
      const int token = begin + q / s.top_k;
      choice = ReadChoice(s, slots, token, q % s.top_k);
    }
    const uint32_t same_slot = __match_any_sync(~0u, choice.slot);
    const uint32_t same_rank = __match_any_sync(~0u, choice.rank);
    visit(q < last ? q : -1, choice, same_slot, same_rank);
    __syncwarp();
  }
}

// Fills routes and ordinals of tokens [begin, end) and `plan`. All threads of the block; ends with
// a barrier.
template <int kThreads>
__device__ void PlanChunk(const Shape& s, const int32_t* slots, int begin, int end, int32_t* routes,
                          int32_t* ordinals, PlanShared& plan, uint16_t* counts) {
  const int num_keys = NumKeys(s);
  const int num_slots = s.num_slots();
  const int num_pairs = (end - begin) * s.top_k;
  const int piece = (num_pairs + kThreads - 1) / kThreads * 32;
  const int num_pieces = piece == 0 ? 0 : (num_pairs + piece - 1) / piece;
  for (int i = threadIdx.x; i < num_keys; i += kThreads) plan.earlier[i] = 0;
  for (int i = threadIdx.x; i < num_pieces * num_keys; i += kThreads) counts[i] = 0;
  __syncthreads();
  CountEarlier<kThreads>(s, slots, begin, plan.earlier);
  const int warp = threadIdx.x / 32;
  const int first = min(warp * piece, num_pairs);
  const int last = min(first + piece, num_pairs);
  uint16_t* mine = counts + warp * num_keys;
  const uint32_t below = (1u << threadIdx.x % 32) - 1;
  const auto advance = [&](const Choice& c, uint32_t same_slot, uint32_t same_rank) {
    if (c.slot >= 0 && (same_slot & below) == 0) mine[c.slot] += __popc(same_slot);
    if (c.rank >= 0 && (same_rank & below) == 0) mine[num_slots + c.rank] += __popc(same_rank);
  };
  ForPairs(s, slots, begin, first, last,
           [&](int, const Choice& c, uint32_t same_slot, uint32_t same_rank) {
             advance(c, same_slot, same_rank);
           });
  __syncthreads();
  for (int key = threadIdx.x; key < num_keys; key += kThreads) {
    int sum = 0;
    for (int p = 0; p < num_pieces; ++p) {
      const int count = counts[p * num_keys + key];
      counts[p * num_keys + key] = static_cast<uint16_t>(sum);
      sum += count;
    }
    plan.total[key] = plan.earlier[key] + sum;
  }
  __syncthreads();
  ForPairs(s, slots, begin, first, last,
           [&](int q, const Choice& c, uint32_t same_slot, uint32_t same_rank) {
             int ordinal = 0;
             int32_t route = kNoRoute;
             if (c.slot >= 0) {
               ordinal = plan.earlier[c.slot] + mine[c.slot] + __popc(same_slot & below);
             }
             if (c.rank >= 0) {
               const int key = num_slots + c.rank;
               route = Route(c.rank, plan.earlier[key] + mine[key] + __popc(same_rank & below));
             }
             if (q >= 0) {
               const int64_t token = begin + q / s.top_k;
               ordinals[token * s.top_k + q % s.top_k] = ordinal;
               routes[token * s.top_k + c.order] = route;
             }
             __syncwarp();
             advance(c, same_slot, same_rank);
           });
  __syncthreads();
}

}  // namespace moebius::cuda::exchange
