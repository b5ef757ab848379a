// Latent attention (MLA) of prompts' chunks, their latents expanded to keys and values of each head
// (kernels/tuning/latent_passes.h says when that pays), on Hopper's tensor cores. A pass: gather
// the latents of its contexts from the cache's blocks, expand them (dense products, the caller's),
// attend. Launches allocate nothing and wait for nothing; arguments are device pointers but where
// it says host. The device thread of a rank calls them.
//
// Work: 2 x (192 + 128) x heads FLOP a query and visible position, causal.
#pragma once

#include <cstdint>

#include "kernels/tuning/latent_passes.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

constexpr int kMlaHead = 128;  // width of a head's keys, without the rotated part, and values
constexpr int kMlaQuery = kMlaHead + 64;  // of its queries, whose last columns are rotated

// latents[first_key + p] = the cache's row of position p, for each sequence of a pass; zeros behind
// its context up to whole tiles.
struct GatherLatentsLaunch {
  // [cache rows, 576] bfloat16, or rows of kernels/latent_row.h; 16-byte aligned.
  const void* cache = nullptr;
  int64_t cache_stride = 0;  // elements; of fp8 rows: bytes
  bool is_fp8 = false;
  const int32_t* block_table = nullptr;
  int64_t max_blocks = 0;
  int block_size = 16;
  const LatentSequence* sequences = nullptr;
  int num_sequences = 0;
  int num_keys = 0;         // of the pass
  void* latents = nullptr;  // [num_keys, 576] without gaps
  int32_t* next = nullptr;  // [num_next], set to zero: MlaPrefillLaunch
  int num_next = 0;
};
int LaunchGatherLatents(const GatherLatentsLaunch& args, CUstream_st* stream);

// Heads [first_head, first_head + num_heads) of the tiles' rows. bfloat16, 16-byte aligned; strides
// in elements.
struct MlaPrefillLaunch {
  const void* q = nullptr;  // [rows, all heads x (128 + 64 rotated)]
  int64_t q_stride = 0;
  int64_t num_rows = 0;
  const void* latents = nullptr;  // [num_keys, 576], of which keys take the last 64 columns
  const void* keys = nullptr;     // [num_keys, num_heads x 128]
  const void* values = nullptr;   // likewise
  int64_t expanded_stride = 0;    // of keys and of values
  int num_keys = 0;
  int num_heads = 0;
  int first_head = 0;
  const LatentTile* tiles = nullptr;
  int num_tiles = 0;
  int num_sms = 0;
  int32_t* next = nullptr;  // zero before the launch: blocks take their work from it
  float scale = 1.0f;
  void* out = nullptr;  // [rows, all heads x 128]
  int64_t out_stride = 0;
};
// 0, or the cudaError_t of the launch.
int LaunchMlaPrefill(const MlaPrefillLaunch& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
