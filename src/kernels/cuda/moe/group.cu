// Grouping by slot: a stable counting sort. A block takes a chunk of pairs, its warps pieces of it
// in order; within a warp lanes of one slot find each other and their order. Few pairs: one block
// does it all. Many: counts by chunk, their sums over chunks, then the places.
#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/moe.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kChunk = 4096;  // pairs a block, of many
constexpr int kAlone = 8192;  // pairs that one block does alone
constexpr int kMaxSlots = 1024;

__host__ __device__ constexpr int64_t NumChunks(int64_t pairs) {
  return pairs <= kAlone ? 1 : (pairs + kChunk - 1) / kChunk;
}

// Exclusive sums of totals[0 .. count) in place, by the whole block; returns the sum of all.
__device__ int ExclusiveSums(int* totals, int count) {
  __shared__ int warp_sums[32];
  int carry = 0;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  for (int begin = 0; begin < count; begin += blockDim.x) {
    const int i = begin + threadIdx.x;
    const int own = i < count ? totals[i] : 0;
    int sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    int before = carry;
    int all = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) {
      if (w < warp) before += warp_sums[w];
      all += warp_sums[w];
    }
    if (i < count) totals[i] = before + sum - own;
    carry += all;
    __syncthreads();
  }
  return carry;
}

// Calls visit(pair, slot, lanes of the same slot) for this warp's pieces of [begin, end), in order;
// slot -1 where there is none.
template <typename Visit>
__device__ void ForPairs(const int32_t* slots, int64_t begin, int64_t end, const Visit& visit) {
  const int64_t piece = ((end - begin + kWarps - 1) / kWarps + 31) / 32 * 32;
  const int64_t first = begin + threadIdx.x / 32 * piece;
  const int64_t last = first + piece < end ? first + piece : end;
  for (int64_t base = first; base < last; base += 32) {
    const int64_t pair = base + threadIdx.x % 32;
    const int slot = pair < last ? slots[pair] : -1;
    const uint32_t same = __match_any_sync(~0u, slot);
    if (pair < last) visit(pair, slot, same);
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kThreads)
    CountKernel(const int32_t* slots, int64_t num_pairs, int num_slots, int32_t* counts) {
  AwaitEarlier();
  __shared__ int totals[kMaxSlots];
  for (int s = threadIdx.x; s < num_slots; s += kThreads) totals[s] = 0;
  __syncthreads();
  const int64_t begin = blockIdx.x * int64_t{kChunk};
  for (int64_t p = begin + threadIdx.x; p < begin + kChunk && p < num_pairs; p += kThreads) {
    if (slots[p] >= 0) atomicAdd(&totals[slots[p]], 1);
  }
  __syncthreads();
  for (int s = threadIdx.x; s < num_slots; s += kThreads) {
    counts[blockIdx.x * int64_t{num_slots} + s] = totals[s];
  }
}

// counts[chunk][slot] becomes the number of the slot's pairs in earlier chunks.
__global__ void __launch_bounds__(kThreads)
    SumKernel(int64_t num_chunks, int num_slots, int32_t* counts, int32_t* offsets) {
  AwaitEarlier();
  __shared__ int totals[kMaxSlots];
  for (int s = threadIdx.x; s < num_slots; s += kThreads) {
    int sum = 0;
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
      int32_t& at = counts[chunk * num_slots + s];
      const int count = at;
      at = sum;
      sum += count;
    }
    totals[s] = sum;
  }
  __syncthreads();
  const int all = ExclusiveSums(totals, num_slots);
  for (int s = threadIdx.x; s < num_slots; s += kThreads) offsets[s] = totals[s];
  if (threadIdx.x == 0) offsets[num_slots] = all;
}

template <bool kOneBlock>
__global__ void __launch_bounds__(kThreads)
    PlaceKernel(const int32_t* slots, int64_t num_pairs, int num_slots, const int32_t* earlier,
                int32_t* offsets, int32_t* pairs, int32_t* places) {
  extern __shared__ uint16_t counts[];  // [warps][slots]: this chunk's, then of earlier warps
  __shared__ int start[kMaxSlots];      // of the slot's places for this chunk
  for (int i = threadIdx.x; i < kWarps * num_slots; i += kThreads) counts[i] = 0;
  AwaitEarlier();
  __syncthreads();
  const int64_t begin = kOneBlock ? 0 : blockIdx.x * int64_t{kChunk};
  const int64_t end = kOneBlock || begin + kChunk > num_pairs ? num_pairs : begin + kChunk;
  uint16_t* mine = counts + threadIdx.x / 32 * num_slots;
  const uint32_t below = (1u << threadIdx.x % 32) - 1;
  ForPairs(slots, begin, end, [&](int64_t, int slot, uint32_t same) {
    if (slot >= 0 && (same & below) == 0) mine[slot] += __popc(same);
  });
  __syncthreads();
  for (int s = threadIdx.x; s < num_slots; s += kThreads) {
    int sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      const int count = counts[w * num_slots + s];
      counts[w * num_slots + s] = static_cast<uint16_t>(sum);
      sum += count;
    }
    start[s] = kOneBlock ? sum : offsets[s] + earlier[blockIdx.x * int64_t{num_slots} + s];
  }
  __syncthreads();
  if constexpr (kOneBlock) {
    const int all = ExclusiveSums(start, num_slots);
    for (int s = threadIdx.x; s < num_slots; s += kThreads) offsets[s] = start[s];
    if (threadIdx.x == 0) offsets[num_slots] = all;
    __syncthreads();
  }
  ForPairs(slots, begin, end, [&](int64_t pair, int slot, uint32_t same) {
    if (slot < 0) {
      places[pair] = -1;
      return;
    }
    const int place = start[slot] + mine[slot] + __popc(same & below);
    pairs[place] = static_cast<int32_t>(pair);
    places[pair] = place;
    __syncwarp(same);
    if ((same & below) == 0) mine[slot] += __popc(same);
  });
}

}  // namespace

size_t GroupBySlotWorkspace(int64_t num_pairs, int num_slots) {
  return static_cast<size_t>(NumChunks(num_pairs)) * num_slots * sizeof(int32_t);
}

int LaunchGroupBySlot(const GroupBySlotLaunch& args, CUstream_st* stream) {
  if (args.num_slots < 1 || args.num_slots > kMaxSlots) return cudaErrorInvalidValue;
  const size_t shared = sizeof(uint16_t) * kWarps * args.num_slots;
  if (args.num_pairs <= kAlone) {
    return LaunchEarly(PlaceKernel<true>, 1, kThreads, shared, stream, args.slots, args.num_pairs,
                       args.num_slots, nullptr, args.offsets, args.pairs, args.places);
  }
  const auto chunks = static_cast<unsigned>(NumChunks(args.num_pairs));
  cudaError_t error = LaunchEarly(CountKernel, chunks, kThreads, 0, stream, args.slots,
                                  args.num_pairs, args.num_slots, args.workspace);
  if (error != cudaSuccess) return error;
  error = LaunchEarly(SumKernel, 1, kThreads, 0, stream, chunks, args.num_slots, args.workspace,
                      args.offsets);
  if (error != cudaSuccess) return error;
  return LaunchEarly(PlaceKernel<false>, chunks, kThreads, shared, stream, args.slots,
                     args.num_pairs, args.num_slots, args.workspace, args.offsets, args.pairs,
                     args.places);
}

}  // namespace moebius::kernels::cuda
