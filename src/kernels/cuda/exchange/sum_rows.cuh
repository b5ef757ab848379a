// Sums of rows, for both halves of combine. Device code only.
#pragma once

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {

// Rows that a team adds, with their weights, in the order they are added.
template <int kTeams>
struct Terms {
  const std::byte* rows[kTeams][kMaxTopK];
  float weights[kTeams][kMaxTopK];
  std::byte* homes[kTeams][kMaxTopK];  // deterministic: where each row goes
  int count[kTeams];
  int positions[kTeams];  // in the home's region
};

// sum[u] of the columns at vector begin + u * step, in order. kArrived: peers wrote the rows.
template <bool kArrived, int kVectors, int kColumns>
__device__ __forceinline__ void AddTerms(const std::byte* const* rows, const float* weights,
                                         int count, int begin, int step, int vectors,
                                         float (&sum)[kVectors][kColumns]) {
  constexpr int kInFlight = 4;
  for (int j = 0; j < count; j += kInFlight) {
    uint4 v[kInFlight][kVectors];
#pragma unroll
    for (int t = 0; t < kInFlight; ++t) {
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        if (j + t < count && begin + u * step < vectors) {
          const std::byte* from = rows[j + t] + int64_t{begin + u * step} * 16;
          v[t][u] = kArrived ? LoadArrived(from) : *reinterpret_cast<const uint4*>(from);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kInFlight; ++t) {
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        if (j + t < count) AddScaled(sum[u], weights[j + t], v[t][u]);
      }
    }
  }
}

inline bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace moebius::cuda::exchange
