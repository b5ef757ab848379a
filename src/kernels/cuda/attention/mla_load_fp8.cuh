// The loading warpgroup of the MLA kernel where the cache is fp8 (kernels/latent_row.h): rows come
// to registers, are multiplied by their scales and stored as the bfloat16 tiles that the tensor
// cores read; the rotated keys come by the copy engine. What the next half tile needs is asked for
// while this one is stored, so only the first waits for memory.
#pragma once

#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/attention/mla_load.cuh"
#include "kernels/cuda/attention/widen_fp8.cuh"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {

// A thread has 16 latents each of 8 rows of a half tile (64 rows x 256 latents, two scales a row):
// those of every 8th row. Eight lanes store to eight different 16-byte banks.
struct MlaFp8Loader {
  static constexpr LatentRow kLayout = {kMlaLatent, kMlaWidth - kMlaLatent};
  static constexpr int kPasses = 8;

  MlaShared& sh;
  const MlaParams& p;
  const CUtensorMap* q_map;
  const CUtensorMap* rope_map;
  int warp = threadIdx.x % 128 / 32;
  int lane = threadIdx.x % 32;
  int row = 2 * warp + lane / 4 % 2;  // of 8
  int column = lane / 8;              // of a half tile's four
  int unit = lane % 4;                // 16 of a column's 64 latents
  uint4 codes[kPasses];
  float scales[kPasses];
  uint32_t parities = 0;  // bit b: of tile buffer b's next use

  // Lane 8 k + i: the cache row where rows [8 i, 8 i + 8) of a tile begin; -1: they read as zeros.
  __device__ int32_t RowsOf(const AttentionSegment& s, int tile) const {
    const int position = tile * 64 + lane % 8 * 8;
    if (position >= s.context) return -1;
    const int32_t id = p.block_table[s.seq * p.max_blocks + (position >> p.block_shift)];
    return id < 0 ? -1 : (id << p.block_shift) + (position & ((1 << p.block_shift) - 1));
  }

  // Of a segment's first tile.
  __device__ int32_t FirstRowsOf(const MlaWork& work, int segment) const {
    if (segment >= work.end) return -1;
    const AttentionSegment s = p.segments[segment];
    return RowsOf(s, s.begin_tile);
  }

  // rows: of all lanes, from RowsOf. first: the half's first column.
  __device__ void Fetch(int32_t rows, int first, int pass) {
    const int32_t base = __shfl_sync(~0u, rows, pass);
    if (base < 0) {
      codes[pass] = make_uint4(0, 0, 0, 0);
      scales[pass] = 0;
      return;
    }
    const uint8_t* from = p.cache + int64_t{base + row} * kLayout.bytes();
    const int latent = (first + column) * 64 + unit * 16;
    codes[pass] = *reinterpret_cast<const uint4*>(from + latent);
    scales[pass] =
        reinterpret_cast<const float*>(from + kLayout.scales_at())[latent / LatentRow::kBlock];
  }
  __device__ void Store(int buffer, int first, int pass) const {
    uint8_t* to = sh.k[buffer][first + column] + (pass * 8 + row) * 128;
    const uint4 x = codes[pass];
    *reinterpret_cast<uint4*>(to + (((2 * unit) ^ row) << 4)) = ScaledBf16(x.x, x.y, scales[pass]);
    *reinterpret_cast<uint4*>(to + (((2 * unit + 1) ^ row) << 4)) =
        ScaledBf16(x.z, x.w, scales[pass]);
  }

  // The rotated keys of a tile, a box a block of the cache; by one warp.
  __device__ void LoadRope(int buffer, int32_t rows, uint32_t barrier) const {
    const int shift = p.block_shift < 6 ? 6 - p.block_shift : 0;  // log2 of the boxes
    if (lane == 0) BarrierExpect(barrier, kMlaColumn);
    const int32_t begin = __shfl_sync(~0u, rows, (lane << 3 >> shift) & 7);
    if (lane < 1 << shift) {
      CopyBox3(SharedAddress(sh.k[buffer][8]) + (lane << (13 - shift)), rope_map, barrier, 0,
               begin < 0 ? p.cache_rows : begin, 0);
    }
  }

  // The first of the columns that barrier `group` of MlaShared stands for.
  static __device__ int FirstColumn(int group) { return group == 1 || group == 2 ? 4 : 0; }

  // Stores what was fetched as columns `group` of a tile and fetches what follows it.
  __device__ void Half(int group, int32_t rows, int32_t next_rows, int next_group) {
    const int buffer = group / 2;
    const int first = FirstColumn(group);
    const int next_first = FirstColumn(next_group);
    const uint32_t barrier = SharedAddress(&sh.full[group]);
    BarrierWait(SharedAddress(&sh.empty[group]), (parities >> buffer & 1) ^ 1);
    if (first == 0 && warp == 0) LoadRope(buffer, rows, barrier);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      Store(buffer, first, pass);
      Fetch(next_rows, next_first, pass);
    }
    FenceAsync();
    __syncwarp();
    if (lane == 0) BarrierArrive(barrier);
  }

  __device__ void Run(const MlaWork& work) {
    int32_t rows = FirstRowsOf(work, work.begin);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) Fetch(rows, 0, pass);
    for (int i = work.begin; i < work.end; ++i) {
      const AttentionSegment s = p.segments[i];
      const int32_t rows_after = FirstRowsOf(work, i + 1);
      if (warp == 0) LoadMlaQueries(sh, p, q_map, s.row, work.head_block, (i - work.begin) & 1);
      int buffer = 0;
      for (int tile = s.begin_tile; tile < s.end_tile; ++tile) {
        const bool last = tile + 1 == s.end_tile;
        const int32_t next_rows = last ? rows_after : RowsOf(s, tile + 1);
#pragma unroll 1  // twice the code wants more registers than there are
        for (int half = 0; half < 2; ++half) {
          const int next = half == 0 ? 2 * buffer + 1 : (last ? 0 : 2 * (buffer ^ 1));
          Half(2 * buffer + half, rows, half == 0 ? rows : next_rows, next);
        }
        parities ^= 1u << buffer;
        buffer ^= 1;
        rows = next_rows;
      }
    }
  }
};

}  // namespace moebius::kernels::cuda
