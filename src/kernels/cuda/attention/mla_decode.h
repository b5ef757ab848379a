// Latent attention (MLA, absorbed) over a paged cache of bfloat16 or fp8, on Hopper's tensor cores.
// A launch allocates nothing, waits for nothing and may be captured in a graph; arguments are
// device pointers. Cache rows are [512 latent | 64 rope], or the 656 bytes of kernels/latent_row.h;
// q rows are heads of [512 | 64]. The device thread of a rank calls it.
//
// Rows are query rows: a decode step has one a sequence, a prefill chunk many of one sequence (each
// with its own visible length), and both may be in one launch. SplitAttention
// (kernels/tuning/attention_splits.h), with tile 64 and MlaDecodeWorkers workers, says who does
// what; its arrays are uploaded with the step's inputs. Work: 2 x 1088 x heads x context FLOP a
// row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tuning/attention_splits.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

constexpr int kMlaLatent = 512;
constexpr int kMlaWidth = 576;
constexpr int kMlaTile = 64;

struct MlaDecodeArgs {
  const void* q = nullptr;      // [num_rows, num_heads, 576] bfloat16, 16-byte aligned
  const void* cache = nullptr;  // [cache_rows, 576] bfloat16, or of 656 bytes; 16-byte aligned
  bool is_fp8 = false;          // the cache
  void* out = nullptr;          // [num_rows, num_heads, 512] bfloat16
  int64_t num_rows = 0;
  int64_t cache_rows = 0;
  int num_heads = 0;  // 8, 16, 32, 64 or a multiple of 64
  float scale = 1.0f;

  const int32_t* block_table = nullptr;  // [seqs, max_blocks]; a negative entry reads as zeros
  int64_t max_blocks = 0;
  int block_size = 64;  // a power of two, at least 8

  const AttentionSegment* segments = nullptr;
  const int32_t* worker_begin = nullptr;  // [num_workers + 1]
  const AttentionRow* combine = nullptr;  // [num_combine]; the first with num_slots 0 ends it
  int64_t num_combine = 0;
  int num_workers = 0;

  void* workspace = nullptr;  // MlaDecodeWorkspaceBytes(slots, num_heads); 16-byte aligned
  int64_t max_slots = 0;
};

// Workers of a device with num_sms multiprocessors: blocks, or groups of blocks that share a row.
inline int MlaDecodeWorkers(int num_sms, int num_heads) {
  const int head_blocks = (num_heads + 63) / 64;
  return num_sms / head_blocks > 0 ? num_sms / head_blocks : 1;
}
// Partial sums of `slots` segments and their logarithms.
inline size_t MlaDecodeWorkspaceBytes(int64_t slots, int num_heads) {
  return static_cast<size_t>(slots) * num_heads * (kMlaLatent + 1) * sizeof(float);
}

// 0, or the cudaError_t of the launch. Two kernels: the segments, then the sum of what was cut.
int LaunchMlaDecode(const MlaDecodeArgs& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
