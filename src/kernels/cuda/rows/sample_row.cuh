// A row of logits held by a cluster of blocks: each has a run of the ids in shared memory, each
// warp a run of its block's, so the order of ids is the order of blocks, warps and places. What
// blocks say to each other goes through their shared memory. Every thread of the cluster calls what
// is here, at the same time and with the same arguments. Device code only.
#pragma once

#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/float_keys.cuh"
#include "kernels/cuda/ptx/sync.cuh"
#include "kernels/cuda/rows/sample.h"

namespace moebius::kernels::cuda::sampling {

namespace ptx = moebius::cuda::ptx;

constexpr int kBlocks = 8;  // a cluster that every GPU takes
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 1024;
constexpr int kListed = 384;  // tokens that a block can list
constexpr float kNever = -INFINITY;

using Units = uint64_t;  // tokens, or probability in 2^-40 of the best token's

struct Token {
  float logit;
  int32_t id;
};
constexpr Token kNoToken = {kNever, -1};

// Beside its part of the row. A vocabulary of 128k leaves this much three times a multiprocessor.
struct Shared {
  DeviceSampleRow wish;
  uint64_t arrived[2];     // barriers of what was said
  Units said[2][kBlocks];  // by each block, in turns
  Units sums[kWarps];      // of this block
  Units before;
  int bin;
  int found;
  Token last;
  Token list[kListed];
  uint32_t low[kBins];  // halves of sums
  uint32_t high[kBins];
};

__host__ __device__ constexpr int64_t IdsOfBlock(int64_t vocab) {
  return (vocab + kBlocks * 32 - 1) / (kBlocks * 32) * 32;  // whole words of masks
}

__device__ inline bool Possible(float x) { return x > kNever; }  // not NaN either

// The sum of the values of lower lanes and of this one.
template <typename T>
__device__ T WarpScan(T x) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(~0u, x, step);
    if (static_cast<int>(threadIdx.x % 32) >= step) x += other;
  }
  return x;
}

template <typename T>
__device__ T WarpSum(T x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// All threads' values as one. Blocks send theirs to each other, which costs less than a barrier
// that orders ordinary writes. round: from 2, one more each time; a block that is behind may still
// read what was said in the last one. Not inlined, which would make the kernel much longer.
template <typename Op>
__device__ __noinline__ Units Combine(Shared& sh, int round, Units mine, const Op& op) {
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) mine = op(mine, __shfl_xor_sync(~0u, mine, step));
  if (lane == 0) sh.sums[warp] = mine;
  __syncthreads();
  const int turn = round & 1;
  uint64_t* const arrived = &sh.arrived[turn];
  if (warp == 0) {
    if (lane == 0) ptx::BarrierArriveExpect(arrived, kBlocks * sizeof(Units));
    mine = sh.sums[lane % kWarps];
#pragma unroll
    for (int step = kWarps / 2; step > 0; step /= 2) {
      mine = op(mine, __shfl_xor_sync(~0u, mine, step));
    }
    if (lane < kBlocks) {
      ptx::StoreAsync(&sh.said[turn][ptx::ClusterRank()], mine, arrived, lane);
    }
  }
  ptx::BarrierWait(arrived, (round >> 1 & 1) ^ 1);
  Units all = sh.said[turn][0];
#pragma unroll
  for (int b = 1; b < kBlocks; ++b) all = op(all, sh.said[turn][b]);
  return all;
}

class Row {
 public:
  // memory: IdsOfBlock floats of shared memory.
  __device__ Row(float* memory, Shared& shared, int vocab)
      : sh(shared), logits_(memory), vocab_(vocab), block_(ptx::ClusterRank()) {
    const int ids = static_cast<int>(IdsOfBlock(vocab));
    const int of_warp = (ids + kWarps * 128 - 1) / (kWarps * 128) * 128;
    begin_ = block_ * ids;
    held_ = max(0, min(ids, (vocab - begin_ + 3) / 4 * 4));
    warp_begin_ = Warp() * of_warp;
    warp_end_ = min(held_, warp_begin_ + of_warp);
  }

  __device__ void Load(const float* row) {
    const bool aligned = reinterpret_cast<uintptr_t>(row) % 16 == 0;
    for (int at = static_cast<int>(threadIdx.x) * 4; at < held_; at += kThreads * 4) {
      const int id = begin_ + at;
      if (aligned && id + 4 <= vocab_) {
        __pipeline_memcpy_async(logits_ + at, row + id, 16);
      } else {
        for (int j = 0; j < 4; ++j) logits_[at + j] = id + j < vocab_ ? row[id + j] : kNever;
      }
    }
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
  }

  // One thread's: the logit of an id that this block holds, otherwise null.
  __device__ float* Find(int id) const {
    const int at = id - begin_;
    return at >= 0 && at < held_ ? logits_ + at : nullptr;
  }
  // Makes impossible what has no bit in `allowed`.
  __device__ void Forbid(const uint32_t* allowed) {
    for (int at = Warp() * 1024; at < held_; at += kWarps * 1024) {
      const int mine = at + Lane() * 32;
      const uint32_t words = mine < held_ ? allowed[(begin_ + mine) / 32] : 0;
      for (int w = 0; w < 32 && at + w * 32 < held_; ++w) {
        const uint32_t bits = __shfl_sync(~0u, words, w);
        if ((bits >> Lane() & 1) == 0) logits_[at + w * 32 + Lane()] = kNever;
      }
    }
  }
  // Calls visit(id, logit) for this thread's ids, ascending: four in a row of each 128 of its warp.
  // Beyond the vocabulary logits are kNever.
  template <typename Visit>
  __device__ void ForMine(const Visit& visit) const {
#pragma unroll 1
    for (int at = warp_begin_ + Lane() * 4; at < warp_end_; at += 128) {
      const float4 x = *reinterpret_cast<const float4*>(logits_ + at);
      const int id = begin_ + at;
      visit(id, x.x);
      visit(id + 1, x.y);
      visit(id + 2, x.z);
      visit(id + 3, x.w);
    }
  }

  __device__ Units Sum(Units mine) {
    return Combine(sh, ++round_, mine, [](Units a, Units b) { return a + b; });
  }
  __device__ Units Largest(Units mine) {
    return Combine(sh, ++round_, mine, [](Units a, Units b) { return a > b ? a : b; });
  }
  // The sum over the row of weight(id, logit).
  template <typename Weight>
  __device__ Units Total(const Weight& weight) {
    Units mine = 0;
    ForMine([&](int id, float x) { mine += weight(id, x); });
    return Sum(mine);
  }
  // After Sum or Total: that of all warps before this one.
  __device__ Units BeforeWarp() const {
    const Units of_blocks = Lane() < block_ ? sh.said[round_ & 1][Lane()] : 0;
    const Units of_warps = Lane() < Warp() ? sh.sums[Lane()] : 0;
    return WarpSum(of_blocks + of_warps);
  }

  // The largest logit, of several the lowest id; id -1: none is possible. best_of_thread: the
  // largest of this thread's.
  __device__ Token Best(float* best_of_thread) {
    Token best = kNoToken;
    ForMine([&](int id, float x) {
      if (x > best.logit) best = {x, id};
    });
    *best_of_thread = best.logit;
    const Units mine = Units{KeyOf(best.logit)} << 32 | ~static_cast<uint32_t>(best.id);
    const Units all = Largest(mine);
    best.logit = ValueOf(static_cast<uint32_t>(all >> 32));
    best.id = Possible(best.logit) ? static_cast<int32_t>(~static_cast<uint32_t>(all)) : -1;
    return best;
  }

  // The first id at which the running sum of weight(id, logit), by id, exceeds `target` (less than
  // the total). After Total with the same weights.
  template <typename Weight>
  __device__ int FirstAbove(Units target, const Weight& weight) {
    Units found = 0;
    Units before = BeforeWarp();
    if (before <= target && target < before + sh.sums[Warp()]) {
      for (int at = warp_begin_; at < warp_end_; at += 128) {
        const int mine = at + Lane() * 4;
        const int id = begin_ + mine;
        Units w[4] = {};
        if (mine < warp_end_) {
          const float4 x = *reinterpret_cast<const float4*>(logits_ + mine);
          w[0] = weight(id, x.x);
          w[1] = weight(id + 1, x.y);
          w[2] = weight(id + 2, x.z);
          w[3] = weight(id + 3, x.w);
        }
        const Units own = w[0] + w[1] + w[2] + w[3];
        const Units sum = WarpScan(own);
        const uint32_t above = __ballot_sync(~0u, before + sum > target);
        if (above == 0) {
          before += __shfl_sync(~0u, sum, 31);
          continue;
        }
        if (Lane() == __ffs(static_cast<int>(above)) - 1) {
          before += sum - own;
          int j = 0;
          while (j < 3 && before + w[j] <= target) before += w[j++];
          found = id + j;
        }
        break;
      }
    }
    __syncthreads();
    return static_cast<int>(Largest(found));
  }

  __device__ int block() const { return block_; }
  __device__ static int Warp() { return static_cast<int>(threadIdx.x / 32); }
  __device__ static int Lane() { return static_cast<int>(threadIdx.x % 32); }

  Shared& sh;

 private:
  float* logits_;
  int vocab_;
  int block_;  // of the cluster
  int begin_;  // the first id of this block
  int held_;   // how many it has, rounded up to fours
  int warp_begin_;
  int warp_end_;
  int round_ = 1;
};

}  // namespace moebius::kernels::cuda::sampling
