// What a block of gqa.cu does with tiles of 64 positions, in both forms: asynchronous copies of K
// and V, two tiles ahead of their use, and the sums of its rows, (query, head of the group) pairs.
// Four warps: each with 16 rows on the whole tile (kRowWarps 4); or, for decode, all with the same
// up to 16 rows, heads of one query, and each with 16 positions of the tile, which it copies itself
// and so need wait for no other (kRowWarps 1). Device code.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/sum_pieces.cuh"
#include "kernels/cuda/attention/visible.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace moebius::kernels::cuda {

struct GqaParams {
  GqaShape shape;
  int group = 1;  // heads a kv head
  int window = 0;
  int chunk = 0;
  uint32_t k_bytes = 0;  // between cache rows
  uint32_t v_bytes = 0;
  float scale_log2 = 1.0f;
  int max_queries = 1;
  const AttentionSegment* segments = nullptr;
  int num_segments = 0;
  const int32_t* worker_begin = nullptr;
  float* partial = nullptr;                // [slots, max_queries, num_heads, head_dim]
  SoftmaxShare* partial_shares = nullptr;  // [slots, max_queries, num_heads]
  int32_t* arrivals = nullptr;
};

template <bool kTransposed>
__device__ __forceinline__ void LoadMatrices(uint32_t (&m)[4], uint32_t shared) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared));
  }
}
// 16 bytes to shared memory, if they are `wanted`; zeros where not `valid`.
__device__ __forceinline__ void CopyAsync(uint32_t to, const void* from, bool valid, bool wanted) {
  asm volatile(
      "{ .reg .pred p; setp.ne.s32 p, %3, 0; @p cp.async.cg.shared.global [%0], [%1], 16, %2; }" ::
          "r"(to),
      "l"(from), "r"(valid ? 16 : 0), "r"(static_cast<int>(wanted))
      : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int kDim, int kRowWarps>
struct GqaBlock {
  static constexpr bool kDecode = kRowWarps == 1;
  static constexpr int kTile = 64;
  static constexpr int kThreads = 128;
  static constexpr int kPositions = kDecode ? 16 : kTile;  // of a tile, that a warp sums
  static constexpr int kRows = kDecode ? 16 : kTile;
  static constexpr int kSlab = kPositions * kDim * 2;  // bytes of K, or V, that it sums
  static constexpr int kSharedBytes = 4 * kTile * kDim * 2;
  static constexpr int kUnits = kDim / 8;  // of 16 bytes, a row

  const GqaParams& p;
  int kv_head;
  int block_row;    // the block's first among the item's rows
  uint32_t shared;  // [2][K, V][kPositions][kDim] (decode: a warp), units swizzled by the row
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int first_row = block_row + (kDecode ? 0 : warp * 16);  // of this warp
  int first_position = kDecode ? warp * 16 : 0;           // of this warp, in a tile
  uint32_t slabs = shared + (kDecode ? warp * 4 * kSlab : 0);
  int unit = lane % kUnits;  // of rows that this lane copies

  int begin_tile;  // of the present segment
  int visible;     // its last query's first position
  int32_t places;  // in the caches: of this lane's position in the two tiles copied last, or next
  int32_t ahead;   // in the two tiles behind them
  int32_t later;   // decode: the newest position's place, in the lane that withheld it; else kLater
  uint32_t q[kDim / 16][4];
  float o[kDim / 8][4];
  float max[2];
  float sum[2];
  int end[2];  // rows lane / 4, + 8: visible positions [begin, end)
  int begin[2];

  static constexpr int32_t kNone = -1;   // zeros instead
  static constexpr int32_t kLater = -2;  // nothing yet

  static __device__ uint32_t At(uint32_t base, int row, int unit) {
    return base + row * kDim * 2 + ((unit ^ (row & 7)) << 4);
  }
  __device__ int RowOfLane(int r) const { return first_row + lane / 4 + 8 * r; }
  __device__ int QueryOf(int row) const { return kDecode ? 0 : row / p.group; }
  __device__ int HeadOf(int row) const {
    return kv_head * p.group + (kDecode ? row : row % p.group);
  }
  // Rows of (query, head) in the output, and among partial results.
  __device__ int64_t OutRow(const AttentionSegment& s, int row) const {
    return static_cast<int64_t>(s.row + QueryOf(row)) * p.shape.num_heads + HeadOf(row);
  }
  __device__ int64_t PartialRow(int slot, int row) const {
    return (static_cast<int64_t>(slot) * p.max_queries + QueryOf(row)) * p.shape.num_heads +
           HeadOf(row);
  }
  __device__ int FirstVisible(int context) const {
    return cuda::FirstVisible(p.window, p.chunk, context);
  }

  // A warp copies 16 positions of each tile; a lane knows where one of them lies, the upper half's
  // in the next tile.
  __device__ int PositionOfLane(int tile) const {
    return (tile + lane / 16) * kTile + warp * 16 + lane % 16;
  }
  __device__ int32_t PlaceOfLane(const AttentionSegment& s, int tile) const {
    const int position = PositionOfLane(tile);
    if (position >= s.context) return kNone;
    const int block = position / p.shape.block_size;
    const int32_t id = __ldcg(p.shape.block_table + s.seq * p.shape.max_blocks + block);
    return id < 0 ? kNone : id * p.shape.block_size + position - block * p.shape.block_size;
  }
  // This lane's unit of a row of K and V: from `place`, or zeros, or not yet.
  __device__ void CopyUnits(uint32_t to, int32_t place) const {
    const uint32_t row = place < 0 ? 0 : place;
    const int column = (kv_head * kUnits + unit) * 16;
    const auto* k = static_cast<const uint8_t*>(p.shape.k_cache) + column;
    const auto* v = static_cast<const uint8_t*>(p.shape.v_cache) + column;
    CopyAsync(to, k + uint64_t{row} * p.k_bytes, place >= 0, place != kLater);
    CopyAsync(to + kSlab, v + uint64_t{row} * p.v_bytes, place >= 0, place != kLater);
  }
  // The first or the second of the two tiles of `places`.
  __device__ void CopyTile(int stage) const {
    constexpr int kAtOnce = 32 / kUnits;  // rows
    const int sub_row = lane / kUnits;
    const uint32_t to =
        At(slabs + stage * 2 * kSlab + (kDecode ? 0 : warp * 16 * kDim * 2), sub_row, unit);
#pragma unroll
    for (int row = 0; row < 16; row += kAtOnce) {
      const int32_t place = __shfl_sync(~0u, places, stage * 16 + row + sub_row);
      // At() of row + sub_row, which have no bit in common.
      CopyUnits((to ^ ((row & 7) << 4)) + row * kDim * 2, place);
    }
  }

  // Starts the copies of the segment's first two tiles. Decode: of positions that earlier steps
  // wrote, which is all but the newest.
  __device__ void StartCopies(const AttentionSegment& s) {
    visible = FirstVisible(s.context);
    // The first query sees furthest back.
    const int first = (kDecode ? visible : FirstVisible(s.context - s.queries + 1)) / kTile;
    begin_tile = s.begin_tile > first ? s.begin_tile : first;
    places = PlaceOfLane(s, begin_tile);
    ahead = PlaceOfLane(s, begin_tile + 2);
    later = kLater;
    if (kDecode && PositionOfLane(begin_tile) == s.context - 1) {
      later = places;
      places = kLater;
    }
#pragma unroll 1
    for (int stage = 0; stage < 2; ++stage) {
      if (begin_tile + stage < s.end_tile) CopyTile(stage);
      if (stage == 0) CommitCopies();
    }
  }
  // The newest position, if it is in them: then in the context's last tile, so it may be counted
  // with the second of the two.
  __device__ void EndCopies(const AttentionSegment& s) const {
    if constexpr (kDecode) {
      const uint32_t who = __ballot_sync(~0u, later != kLater);
      if (who != 0) {
        const int of = __ffs(who) - 1;
        const int32_t place = __shfl_sync(~0u, later, of);
        const uint32_t to = At(slabs + of / 16 * 2 * kSlab, of % 16, unit);
        if (begin_tile + of / 16 < s.end_tile && lane < kUnits) CopyUnits(to, place);
      }
    }
    CommitCopies();
  }

  __device__ void LoadQueries(const AttentionSegment& s) {
    const auto* all = static_cast<const __nv_bfloat16*>(p.shape.q);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      max[r] = -INFINITY;
      sum[r] = 0;
      const int row = RowOfLane(r);
      const bool there = row < s.queries * p.group;
      end[r] = there ? s.context - s.queries + 1 + QueryOf(row) : 0;
      begin[r] = kDecode ? visible : there ? FirstVisible(end[r]) : 0;
      const auto* from = reinterpret_cast<const uint32_t*>(
          all + (s.row + QueryOf(row)) * p.shape.q_stride + HeadOf(row) * kDim);
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k) {
        q[k][r] = there ? from[8 * k + lane % 4] : 0;
        q[k][2 + r] = there ? from[8 * k + 4 + lane % 4] : 0;
      }
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0;
  }

  // This warp's part of one tile.
  __device__ void AddTile(int tile, int stage) {
    const uint32_t keys = slabs + stage * 2 * kSlab;
    const uint32_t values = keys + kSlab;
    float s[kPositions / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kPositions / 16; ++n) {
        uint32_t b[4];
        LoadMatrices<false>(b, At(keys, 16 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
        moebius::cuda::ptx::MultiplyAdd(s[2 * n], q[k], b[0], b[1]);
        moebius::cuda::ptx::MultiplyAdd(s[2 * n + 1], q[k], b[2], b[3]);
      }
    }
    Softmax(s, tile * kTile + first_position);
#pragma unroll
    for (int n = 0; n < kPositions / 16; ++n) {
      const uint32_t a[4] = {PackBf16(s[2 * n][0], s[2 * n][1]), PackBf16(s[2 * n][2], s[2 * n][3]),
                             PackBf16(s[2 * n + 1][0], s[2 * n + 1][1]),
                             PackBf16(s[2 * n + 1][2], s[2 * n + 1][3])};
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) {
        uint32_t b[4];
        LoadMatrices<true>(b, At(values, 16 * n + lane % 16, 2 * j + lane / 16));
        moebius::cuda::ptx::MultiplyAdd(o[2 * j], a, b[0], b[1]);
        moebius::cuda::ptx::MultiplyAdd(o[2 * j + 1], a, b[2], b[3]);
      }
    }
  }

  // Scores become weights; the running maximum, sum and output follow.
  __device__ void Softmax(float (&s)[kPositions / 8][4], int position) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
#pragma unroll
      for (int j = 0; j < kPositions / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int at = position + 8 * j + lane % 4 * 2 + c;
          float& x = s[j][2 * r + c];
          x = at >= begin[r] && at < end[r] ? x * p.scale_log2 : -INFINITY;
          top = fmaxf(top, x);
        }
      }
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float base = top == -INFINITY ? 0.0f : top;  // nothing visible yet
      const float factor = Exp2(max[r] - base);
      max[r] = top;
      sum[r] *= factor;
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        o[j][2 * r] *= factor;
        o[j][2 * r + 1] *= factor;
      }
#pragma unroll
      for (int j = 0; j < kPositions / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          s[j][2 * r + c] = Exp2(s[j][2 * r + c] - base);
          sum[r] += s[j][2 * r + c];
        }
      }
    }
  }

  // A stage is written by those that read it: in decode by the warp alone.
  static __device__ void SyncStage() {
    if constexpr (kDecode) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
  // Sums the segment's tiles, whose first copies were started. Rows' sums stay with this warp, in
  // each lane those of its own columns and a quarter of `sum`'s.
  __device__ void AddTiles(const AttentionSegment& s) {
    LoadQueries(s);
    EndCopies(s);
    for (int tile = begin_tile; tile < s.end_tile; ++tile) {
      const int stage = (tile - begin_tile) & 1;
      if (tile + 1 < s.end_tile) {
        asm volatile("cp.async.wait_group 1;" ::: "memory");
      } else {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
      }
      SyncStage();
      AddTile(tile, stage);
      SyncStage();
      if (tile + 2 >= s.end_tile) continue;
      if (stage == 0) {
        places = ahead;
        ahead = PlaceOfLane(s, tile + 4);
      }
      CopyTile(stage);
      CommitCopies();
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
  }
};

}  // namespace moebius::kernels::cuda
