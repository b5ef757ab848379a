// The experts of a row in the registers of the warp that has it: a group of them (one that is all,
// where there are no groups) lies in lanes of its own, each of which has a run of it, sorted. So
// the best of all is among the lanes' first ones, and of equal ones the lowest lane has the lowest
// id.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/float_keys.cuh"
#include "kernels/tuning/device_limits.h"

namespace moebius::kernels::cuda {

// Which lanes have which experts.
struct ExpertLanes {
  int num_groups = 1;
  int group_size = 0;
  int per_group = 32;  // lanes
  int each = 0;        // experts of a lane, at most

  __host__ static ExpertLanes Of(int num_experts, int num_groups) {
    return {num_groups, num_experts / num_groups, 32 / num_groups,
            static_cast<int>(LaneExperts(num_experts, num_groups))};
  }
};

// What one of them has.
struct ExpertRun {
  int group;
  int first;
  int count;  // or 0

  __device__ ExpertRun(const ExpertLanes& lanes, int lane) : group(lane / lanes.per_group) {
    const int before = lane % lanes.per_group * lanes.each;  // of the group
    first = group * lanes.group_size + before;
    count = group < lanes.num_groups ? max(0, min(lanes.each, lanes.group_size - before)) : 0;
  }

  // from[first + i], and `none` where this run has no i.
  template <int kEach>
  __device__ void Load(const float* from, float none, float (&to)[kEach]) const {
    const float* const own = from + first;
    if (kEach % 4 == 0 && count % 4 == 0 && reinterpret_cast<uintptr_t>(own) % 16 == 0) {
#pragma unroll
      for (int i = 0; i < kEach; i += 4) {
        const float4 four = i < count ? *reinterpret_cast<const float4*>(own + i)
                                      : make_float4(none, none, none, none);
        to[i] = four.x;
        to[i + 1] = four.y;
        to[i + 2] = four.z;
        to[i + 3] = four.w;
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) to[i] = i < count ? own[i] : none;
  }
};

// All lanes of the warp call its functions.
template <int kEach>
struct HeldExperts {
  uint32_t keys[kEach];  // best first; 0: none
  int at[kEach];         // its place in the run

  __device__ HeldExperts(const ExpertRun& run, const float (&values)[kEach]) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      keys[i] = i < run.count ? KeyOf(values[i]) : 0;
      at[i] = i;
    }
    // Neighbours change places, so equal ones keep theirs.
#pragma unroll
    for (int pass = 0; pass < kEach; ++pass) {
#pragma unroll
      for (int i = pass % 2; i + 1 < kEach; i += 2) {
        const bool swaps = keys[i] < keys[i + 1];
        const uint32_t better = max(keys[i], keys[i + 1]);
        keys[i + 1] = min(keys[i], keys[i + 1]);
        keys[i] = better;
        const int place = swaps ? at[i + 1] : at[i];
        at[i + 1] = swaps ? at[i] : at[i + 1];
        at[i] = place;
      }
    }
  }

  // All of this lane become -inf.
  __device__ void Lower(const ExpertRun& run) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      keys[i] = i < run.count ? KeyOf(-INFINITY) : 0;
      at[i] = i;
    }
  }

  // Whether this lane's group is one of the `num_best`, by its best expert or the sum of two.
  __device__ bool IsOfBestGroups(const ExpertLanes& lanes, const ExpertRun& run, bool sums_two,
                                 int num_best) const {
    uint32_t first = 0;
    uint32_t second = 0;
    for (int i = 0; i < lanes.per_group; ++i) {
      const uint32_t other = __shfl_sync(~0u, keys[0], run.group * lanes.per_group + i);
      const uint32_t next = __shfl_sync(~0u, keys[1], run.group * lanes.per_group + i);
      second = max(min(first, other), max(second, next));
      first = max(first, other);
    }
    const float value =
        sums_two && lanes.group_size > 1 ? ValueOf(first) + ValueOf(second) : ValueOf(first);
    const uint32_t own = KeyOf(value);
    int num_better = 0;
    for (int g = 0; g < lanes.num_groups; ++g) {
      const uint32_t other = __shfl_sync(~0u, own, g * lanes.per_group);
      num_better += other > own || (other == own && g < run.group) ? 1 : 0;
    }
    return num_better < num_best;
  }

  // Takes the best of the warp: its lane, and its place in that one's run.
  __device__ int2 TakeBest(int lane) {
    const uint32_t best = __reduce_max_sync(~0u, keys[0]);
    const int winner = __ffs(__ballot_sync(~0u, keys[0] == best)) - 1;
    const int2 taken = make_int2(winner, __shfl_sync(~0u, at[0], winner));
    if (lane == winner) {
#pragma unroll
      for (int i = 0; i + 1 < kEach; ++i) {
        keys[i] = keys[i + 1];
        at[i] = at[i + 1];
      }
      keys[kEach - 1] = 0;
    }
    return taken;
  }
};

}  // namespace moebius::kernels::cuda
