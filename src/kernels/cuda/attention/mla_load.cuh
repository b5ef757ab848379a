// The loading warp of the MLA kernel where the cache is bfloat16: boxes of the cache come to shared
// memory as they are, by the copy engine.
#pragma once

#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/mla_tiles.cuh"

namespace moebius::kernels::cuda {

// A block's heads of one row; by one warp. parity: of the segment among the block's.
__device__ __forceinline__ void LoadMlaQueries(MlaShared& sh, const MlaParams& p,
                                               const CUtensorMap* q_map, int row, int head_block,
                                               int parity) {
  const int lane = threadIdx.x % 32;
  const int heads = p.num_heads < 64 ? p.num_heads : 64;
  BarrierWait(SharedAddress(&sh.q_empty), parity ^ 1);
  if (lane == 0) BarrierExpect(SharedAddress(&sh.q_full), kMlaColumns * heads * 128);
  __syncwarp();
  if (lane < kMlaColumns) {
    CopyBox3(SharedAddress(sh.q[lane]), q_map, SharedAddress(&sh.q_full), 0,
             row * p.num_heads + head_block * 64, lane);
  }
}

// A warp that keeps the two tile buffers filled. Its lanes issue one copy each.
template <bool kWholeTile>
struct MlaLoader {
  MlaShared& sh;
  const MlaParams& p;
  const CUtensorMap* q_map;
  const CUtensorMap* kv_map;    // boxes of 4 columns (whole tiles), else 1
  const CUtensorMap* rope_map;  // boxes of 1 column
  int lane;
  int32_t ids = 0;       // of 32 entries of the block table from `window` on, one a lane,
  int32_t next_ids = 0;  // and of the 32 behind them
  int32_t window = 0;
  uint32_t parities = 0;  // bit b: of tile buffer b's next use

  // Calls copy(map, piece, column) for the boxes of a group, each once, by one lane.
  template <typename Copying>
  __device__ void ForBoxes(int group, const Copying& copy) const {
    const int first = group == 1 || group == 2 ? 4 : 0;
    const bool rope = first == 0;
    if constexpr (kWholeTile) {
      if (lane == 0) copy(kv_map, 0, first);
      if (lane == 1 && rope) copy(rope_map, 0, 8);
    } else {
      const int shift = 6 - p.block_shift;
      const int count = (rope ? 5 : 4) << shift;
      for (int i = lane; i < count; i += 32) {
        const int column = i >> shift;
        copy(kv_map, i & ((1 << shift) - 1), column == 4 ? 8 : first + column);
      }
    }
  }

  // The cache row where a tile's piece begins; beyond the context, or in a hole of the table: one
  // that reads as zeros. Called by the whole warp, each lane with a piece of its own.
  __device__ int RowOf(const AttentionSegment& s, int tile, int piece) const {
    const int position = tile * 64 + (kWholeTile ? 0 : piece << p.block_shift);
    const int at = (position >> p.block_shift) - window;
    const int32_t here = __shfl_sync(~0u, ids, at & 31);
    const int32_t next = __shfl_sync(~0u, next_ids, at & 31);
    const int32_t id = at < 32 ? here : next;
    if (position >= s.context || id < 0) return p.cache_rows;
    return (id << p.block_shift) + (position & ((1 << p.block_shift) - 1));
  }
  __device__ int PieceOfLane() const { return lane & ((1 << (6 - p.block_shift)) - 1); }

  __device__ int32_t ReadTable(const AttentionSegment& s, int64_t entry) const {
    return entry << p.block_shift < s.context ? p.block_table[s.seq * p.max_blocks + entry] : -1;
  }
  // Moves the window so that it holds the entries of `tile`; the 32 behind are on their way.
  __device__ void MoveWindow(const AttentionSegment& s, int tile, bool first) {
    const int entry = tile * 64 >> p.block_shift;
    if (first) {
      window = entry & ~31;
      ids = ReadTable(s, window + lane);
      next_ids = ReadTable(s, window + 32 + lane);
    } else if (entry >= window + 32) {
      window += 32;
      ids = next_ids;
      next_ids = ReadTable(s, window + 32 + lane);
    }
  }

  __device__ void LoadTile(const AttentionSegment& s, int tile) {
    const int buffer = (tile - s.begin_tile) & 1;
    const uint32_t parity = (parities >> buffer) & 1;
    parities ^= 1u << buffer;
    const int row = RowOf(s, tile, kWholeTile ? 0 : PieceOfLane());
    for (int group = 2 * buffer; group < 2 * buffer + 2; ++group) {
      const uint32_t barrier = SharedAddress(&sh.full[group]);
      BarrierWait(SharedAddress(&sh.empty[group]), parity ^ 1);
      if (lane == 0) BarrierExpect(barrier, (group == 0 || group == 3 ? 5 : 4) * kMlaColumn);
      __syncwarp();
      ForBoxes(group, [&](const CUtensorMap* map, int piece, int column) {
        const int at = kWholeTile ? 0 : piece << (p.block_shift + 7);
        CopyBox3(SharedAddress(sh.k[buffer][column]) + at, map, barrier, 0, row, column);
      });
    }
  }

  __device__ void Run(const MlaWork& work) {
    for (int i = work.begin; i < work.end; ++i) {
      const AttentionSegment s = p.segments[i];
      MoveWindow(s, s.begin_tile, true);
      LoadMlaQueries(sh, p, q_map, s.row, work.head_block, (i - work.begin) & 1);
      for (int tile = s.begin_tile; tile < s.end_tile; ++tile) {
        MoveWindow(s, tile, false);
        LoadTile(s, tile);
      }
    }
  }
};

}  // namespace moebius::kernels::cuda
