// The loading warpgroup of the MLA kernel where the cache is fp8 (kernels/latent_row.h): rows come
// to registers, are multiplied by their scales and stored as the bfloat16 tiles that the tensor
// cores read; the rotated keys come by the copy engine. Registers hold a whole tile: while one half
// is stored the other is on its way, and the tile behind both on its way to the L2 cache.
#pragma once

#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/attention/mla_load.cuh"
#include "kernels/cuda/attention/widen_fp8.cuh"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {

// A thread has 16 latents of each of four columns, of two rows of a half tile (64 rows x 256
// latents, two scales a row). Eight lanes store to eight different 16-byte banks.
struct MlaFp8Loader {
  static constexpr LatentRow kLayout = {kMlaLatent, kMlaWidth - kMlaLatent};
  static constexpr uint32_t kRowBytes = kLayout.bytes();

  // What a thread holds of a half tile: of its row, and of the row 32 behind.
  struct Half {
    uint4 codes[2][4];
    float scale;  // of row `unit` / 2, columns from 2 (`unit` % 2) on
  };

  MlaShared& sh;
  const MlaParams& p;
  const CUtensorMap* q_map;
  const CUtensorMap* rope_map;
  int warp = Uniform(threadIdx.x % 128 / 32);
  int lane = threadIdx.x % 32;
  int row = lane / 4;     // of the 8 from 8 `warp` on
  int unit = lane % 4;    // 16 of a column's 64 latents
  uint32_t parities = 0;  // bit b: of tile buffer b's next use

  static __device__ int Uniform(int x) { return __shfl_sync(~0u, x, 0); }

  // Lane 8 k + i has to do with rows [8 i, 8 i + 8) of a tile. Its entry of the block table: the
  // last one that there is, where it is beyond the context.
  __device__ int32_t EntryOf(const AttentionSegment& s, int tile) const {
    const int position = max(min(tile * 64 + lane % 8 * 8, s.context - 1), 0);
    return p.block_table[s.seq * p.max_blocks + (position >> p.block_shift)];
  }
  // The cache row where they begin; -1: they read as zeros.
  __device__ int32_t RowsOf(const AttentionSegment& s, int tile, int32_t entry) const {
    const int position = tile * 64 + lane % 8 * 8;
    const int32_t begin = (entry << p.block_shift) + (position & ((1 << p.block_shift) - 1));
    return position >= s.context || entry < 0 ? -1 : begin;
  }

  // Of a segment's first tile.
  __device__ int32_t FirstRowsOf(const MlaWork& work, int segment) const {
    if (segment >= work.end) return -1;
    const AttentionSegment s = p.segments[segment];
    return RowsOf(s, s.begin_tile, EntryOf(s, s.begin_tile));
  }

  // rows: of all lanes, from RowsOf. first: the half's first column. Loads are unconditional: the
  // warp would wait for a value that depends on a condition.
  __device__ void Fetch(int32_t rows, int first, Half& to) const {
    const uint8_t* from[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t at = max(__shfl_sync(~0u, rows, warp + 4 * i), 0) + row;
      from[i] = p.cache + uint64_t{at} * kRowBytes;
    }
    const int block = first * 64 / LatentRow::kBlock + unit % 2;
    to.scale = *reinterpret_cast<const float*>((unit < 2 ? from[0] : from[1]) +
                                               kLayout.scales_at() + block * 4);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int column = 0; column < 4; ++column) {
        to.codes[i][column] =
            *reinterpret_cast<const uint4*>(from[i] + (first + column) * 64 + unit * 16);
      }
    }
  }
  // What was fetched for rows that are not there becomes zeros.
  __device__ void BlankCodes(int32_t rows, Half& half) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (__shfl_sync(~0u, rows, warp + 4 * i) >= 0) continue;
#pragma unroll
      for (int column = 0; column < 4; ++column) half.codes[i][column] = make_uint4(0, 0, 0, 0);
    }
  }
  __device__ void BlankScales(int32_t rows, float (&scales)[2][2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (__shfl_sync(~0u, rows, warp + 4 * i) < 0) scales[i][0] = scales[i][1] = 0;
    }
  }
  __device__ void Store(const Half& from, const float (&scales)[2][2], int buffer,
                        int first) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int column = 0; column < 4; ++column) {
        const uint4 x = from.codes[i][column];
        const float by = scales[i][column / 2];
        uint8_t* const to = sh.k[buffer][first + column] + (32 * i + 8 * warp + row) * 128;
        *reinterpret_cast<uint4*>(to + (((2 * unit) ^ row) << 4)) = ScaledBf16(x.x, x.y, by);
        *reinterpret_cast<uint4*>(to + (((2 * unit + 1) ^ row) << 4)) = ScaledBf16(x.z, x.w, by);
      }
    }
  }

  // A tile comes in pieces that lie together: those of a block of the cache. Their number's log2.
  __device__ int PieceShift() const { return p.block_shift < 6 ? 6 - p.block_shift : 0; }
  // Where the lane's piece begins.
  __device__ int32_t PieceOf(int32_t rows) const {
    return __shfl_sync(~0u, rows, (lane << 3 >> PieceShift()) & 7);
  }
  // The rotated keys of a tile, a box a piece; by one warp.
  __device__ void LoadRope(int buffer, int32_t rows, uint32_t barrier) const {
    const int shift = PieceShift();
    if (lane == 0) BarrierExpect(barrier, kMlaColumn);
    const int32_t begin = PieceOf(rows);
    if (lane < 1 << shift) {
      CopyBox3(SharedAddress(sh.k[buffer][8]) + (lane << (13 - shift)), rope_map, barrier, 0,
               begin < 0 ? p.cache_rows : begin, 0);
    }
  }
  // Asks for a tile to come to the L2 cache; by one warp.
  __device__ void Announce(int32_t rows) const {
    const int shift = PieceShift();
    const int32_t begin = PieceOf(rows);
    if (lane < 1 << shift && begin >= 0) {
      PrefetchBulk(p.cache + uint64_t{uint32_t(begin)} * kRowBytes, (64 >> shift) * kRowBytes);
    }
  }

  // Where the columns begin that half 0 or 1 of a tile buffer has.
  static __device__ int FirstColumn(int buffer, int half) { return buffer == half ? 0 : 4; }

  // Stores half `half` of a tile, and asks for the half behind it. The shuffle of the scales waits
  // for what `held` asked for, and stands between two branches so that the compiler leaves it
  // there: moved before or behind, it would wait for what has only just been asked for.
  __device__ void Pass(int half, Half& held, int buffer, int32_t rows, Half& other, int next_first,
                       int32_t next_rows) {
    const int first = FirstColumn(buffer, half);
    const uint32_t barrier = SharedAddress(&sh.full[2 * buffer + half]);
    const bool holes = __any_sync(~0u, rows < 0);
    if (holes) BlankCodes(rows, held);
    float scales[2][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) scales[i / 2][i % 2] = __shfl_sync(~0u, held.scale, i, 4);
    if (holes) BlankScales(rows, scales);
    Fetch(next_rows, next_first, other);
    BarrierWait(SharedAddress(&sh.empty[2 * buffer + half]), (parities >> buffer & 1) ^ 1);
    if (first == 0 && warp == 0) LoadRope(buffer, rows, barrier);
    Store(held, scales, buffer, first);
    FenceAsync();
    __syncwarp();
    if (lane == 0) BarrierArrive(barrier);
  }

  __device__ void Run(const MlaWork& given) {
    const MlaWork work = {Uniform(given.begin), Uniform(given.end), given.head_block};
    Half halves[2];
    int32_t rows = FirstRowsOf(work, work.begin);
    Fetch(rows, 0, halves[0]);
    for (int i = work.begin; i < work.end; ++i) {
      AttentionSegment s = p.segments[i];
      s.begin_tile = Uniform(s.begin_tile);
      s.end_tile = Uniform(s.end_tile);
      const int32_t rows_after = FirstRowsOf(work, i + 1);
      int32_t next_rows = rows_after;
      if (s.begin_tile + 1 < s.end_tile) {
        next_rows = RowsOf(s, s.begin_tile + 1, EntryOf(s, s.begin_tile + 1));
      }
      if (warp == 0) LoadMlaQueries(sh, p, q_map, s.row, work.head_block, (i - work.begin) & 1);
      int buffer = 0;
      for (int tile = s.begin_tile; tile < s.end_tile; ++tile) {
        const int next_buffer = tile + 1 < s.end_tile ? buffer ^ 1 : 0;
        const int32_t entry = EntryOf(s, tile + 2);
        Pass(0, halves[0], buffer, rows, halves[1], FirstColumn(buffer, 1), rows);
        Pass(1, halves[1], buffer, rows, halves[0], FirstColumn(next_buffer, 0), next_rows);
        parities ^= 1u << buffer;
        buffer = next_buffer;
        rows = next_rows;
        next_rows = tile + 2 < s.end_tile ? RowsOf(s, tile + 2, entry) : rows_after;
        if (warp == 3) Announce(next_rows);
      }
    }
  }
};

}  // namespace moebius::kernels::cuda
