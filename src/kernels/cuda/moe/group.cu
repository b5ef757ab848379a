// Grouping by slot: a stable counting sort. A block takes a chunk of pairs, its warps pieces of it
// in order; within a warp lanes of one slot find each other and their order. Few pairs: one block
// does it all. Many: counts by chunk, their sums over chunks, then the places.
#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/exclusive_sums.cuh"
#include "kernels/cuda/moe/moe.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kChunk = 4096;  // pairs a block, of many
constexpr int kAlone = 8192;  // pairs that one block does alone

__host__ __device__ constexpr int64_t NumChunks(int64_t pairs) {
  return pairs <= kAlone ? 1 : (pairs + kChunk - 1) / kChunk;
}

// A warp's piece of the pairs [begin, end), pieces in the order of warps: the lanes' slots in
// registers, all asked for at once; -1: none. kMost: pairs of a lane.
template <int kMost>
struct Piece {
  int64_t first;
  int64_t last;
  int slots[kMost];

  __device__ Piece(const int32_t* all, int64_t begin, int64_t end) {
    const int64_t size = ((end - begin + kWarps - 1) / kWarps + 31) / 32 * 32;
    first = begin + threadIdx.x / 32 * size;
    last = first + size < end ? first + size : end;
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      const int64_t pair = first + 32 * i + threadIdx.x % 32;
      slots[i] = pair < last ? all[pair] : -1;
    }
  }

  // visit(pair, slot, lanes of the same slot), in order.
  template <typename Visit>
  __device__ void ForPairs(const Visit& visit) const {
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (first + 32 * i >= last) return;
      const int64_t pair = first + 32 * i + threadIdx.x % 32;
      const uint32_t same = __match_any_sync(~0u, slots[i]);
      if (pair < last) visit(pair, slots[i], same);
      __syncwarp();
    }
  }
};

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
  const Piece<(kOneBlock ? kAlone : kChunk) / kThreads> piece(slots, begin, end);
  piece.ForPairs([&](int64_t, int slot, uint32_t same) {
    if (slot >= 0 && (same & below) == 0) mine[slot] += __popc(same);
  });
  __syncthreads();
  for (int s = threadIdx.x; s < num_slots; s += kThreads) {
    int of_warp[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) of_warp[w] = counts[w * num_slots + s];
    int sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      counts[w * num_slots + s] = static_cast<uint16_t>(sum);
      sum += of_warp[w];
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
  piece.ForPairs([&](int64_t pair, int slot, uint32_t same) {
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
