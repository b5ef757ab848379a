// What a block of the MLA kernel holds and is told: its shared memory and the launch's parameters,
// for the warps that load tiles (mla_load.cuh, mla_load_fp8.cuh) and those that compute
// (mla_decode.cu).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/tuning/attention_splits.h"

namespace moebius::kernels::cuda {

constexpr int kMlaColumn = 64 * 64 * 2;  // bytes of 64 rows x 64 columns of bfloat16
constexpr int kMlaColumns = 9;           // 8 latent, 1 rope

struct MlaShared {
  uint8_t q[kMlaColumns][kMlaColumn];
  uint8_t k[2][kMlaColumns][kMlaColumn];
  uint8_t p0[kMlaColumn];  // P1 takes the place of K1's rope column, read by then
  float max0[64];
  float max1[64];
  float sum[2][2][64];  // by segment parity, by group
  // Columns of tile 0: [0] latent 0-3 and rope, [1] latent 4-7; of tile 1: [2] latent 4-7, [3]
  // latent 0-3 and rope.
  uint64_t full[4];
  uint64_t empty[4];
  uint64_t q_full;
  uint64_t q_empty;
};
static_assert(sizeof(MlaShared) + 1024 <= 232448);

struct MlaParams {
  const uint8_t* cache;  // of fp8 rows; others come by a tensor map
  __nv_bfloat16* out;
  float* partial;      // [slots, num_heads, 512]
  float* partial_lse;  // [slots, num_heads], base 2
  const AttentionSegment* segments;
  const int32_t* worker_begin;
  const int32_t* block_table;
  int64_t max_blocks;
  int32_t cache_rows;
  int32_t num_heads;
  int32_t block_shift;  // log2 of the block size
  float scale_log2;
};

struct MlaWork {
  int begin;
  int end;
  int head_block;
};

}  // namespace moebius::kernels::cuda
