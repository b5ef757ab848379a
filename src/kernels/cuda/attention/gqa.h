// Grouped-query attention over paged caches, decode and prefill in one launch. Two forms: on the
// tensor cores (bfloat16, equal head widths of 64, 128 or 256), and one for any width and dtype,
// slow, which also serves MLA where its own kernel does not. (Prompts' chunks with heads of 128:
// gqa_prefill.h.) A launch allocates nothing, waits for nothing and may be captured in a graph;
// arguments are device pointers. The device thread of a rank calls it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tuning/attention_splits.h"
#include "tensor/dtype.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

// What both forms share. Query head h reads kv head h / (num_heads / num_kv_heads).
struct GqaShape {
  const void* q = nullptr;        // [rows, num_heads * head_dim]
  const void* k_cache = nullptr;  // [cache rows, num_kv_heads * head_dim]
  const void* v_cache = nullptr;  // [cache rows, num_kv_heads * v_head_dim]
  void* out = nullptr;            // [rows, num_heads * v_head_dim], the dtype of q
  int64_t q_stride = 0;           // elements between rows of q; 0: they follow each other
  int64_t k_stride = 0;           // elements between cache rows (fp8: bytes)
  int64_t v_stride = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int v_head_dim = 0;
  float scale = 1.0f;
  int64_t window = 0;  // > 0: position p sees (p - window, p]
  int64_t chunk = 0;   // > 0: position p sees [p / chunk * chunk, p]
  const int32_t* block_table = nullptr;
  int64_t max_blocks = 0;
  int block_size = 16;
};

// Queries that share one pass over the context on the tensor cores: what AttentionItems cuts
// sequences into. decode: no sequence has more than one. Else 64 rows of (query, head).
inline int GqaQueriesPerItem(int num_heads, int num_kv_heads, bool decode) {
  const int queries = 64 / (num_heads / num_kv_heads);
  return decode || queries == 0 ? 1 : queries;
}
inline int GqaRowBlocks(int num_heads, int num_kv_heads, int max_queries) {
  const int rows = max_queries * (num_heads / num_kv_heads);
  return (rows + 63) / 64;
}
// Whether the heads of one query share a pass, in a form of its own.
inline bool IsGqaDecode(int num_heads, int num_kv_heads, int max_queries) {
  return max_queries == 1 && num_heads / num_kv_heads <= 16;
}
// Blocks a multiprocessor: as many as were measured to be fastest (shared memory and registers
// allow no more).
constexpr int GqaBlocksPerSm(int head_dim, bool decode) {
  if (head_dim > 128) return 1;
  return decode ? (head_dim <= 64 ? 4 : 3) : 2;
}
// For SplitAttention (tile 64, summed in place): the blocks that stay for the launch.
inline int GqaWorkers(int num_sms, int num_heads, int num_kv_heads, int max_queries, int head_dim) {
  const int per_sm = GqaBlocksPerSm(head_dim, IsGqaDecode(num_heads, num_kv_heads, max_queries));
  const int groups = num_kv_heads * GqaRowBlocks(num_heads, num_kv_heads, max_queries);
  return per_sm * num_sms / groups > 0 ? per_sm * num_sms / groups : 1;
}
inline size_t GqaWorkspaceBytes(int64_t slots, int max_queries, int num_heads, int head_dim) {
  return static_cast<size_t>(slots) * max_queries * num_heads * (head_dim + 2) * sizeof(float);
}
// Numbers in which blocks count that have written their piece of an item.
inline int64_t GqaArrivals(int64_t slots, int max_queries, int num_heads, int num_kv_heads) {
  return slots * num_kv_heads * GqaRowBlocks(num_heads, num_kv_heads, max_queries);
}

struct GqaArgs {
  GqaShape shape;  // bfloat16; caches and strides aligned to 16 bytes
  // Of an item. 1, of at most 16 heads a kv head (IsGqaDecode): then no sequence has two queries,
  // and what lies in the caches before its query's position is older than the launch before this
  // one. It is read before the wait (kernels/cuda/launch.cuh), as are, in any form, the segments,
  // worker_begin and the block table.
  int max_queries = 1;
  const AttentionSegment* segments = nullptr;  // [num_segments]; workers need not have all
  int64_t num_segments = 0;
  const int32_t* worker_begin = nullptr;  // [num_workers + 1]
  int num_workers = 0;
  void* workspace = nullptr;  // GqaWorkspaceBytes
  int64_t max_slots = 0;
  int32_t* arrivals = nullptr;  // [GqaArrivals], zero between launches
};
// 0, or the cudaError_t: cudaErrorInvalidValue for a shape it does not take.
int LaunchGqa(const GqaArgs& args, CUstream_st* stream);

// Any widths up to 1024, float32 or bfloat16 (q and out one dtype, both caches one dtype); a warp a
// (query, head). An fp8 cache (kernels/latent_row.h) is keys and values of one head, its latents
// v_head_dim wide.
struct AttentionAnyArgs {
  GqaShape shape;
  DType dtype = DType::kBF16;
  DType cache_dtype = DType::kBF16;
  const AttentionItem* items = nullptr;  // [num_items], of one query each
  int64_t num_items = 0;
};
int LaunchAttentionAny(const AttentionAnyArgs& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
