// Operations that work on one row at a time, on the GPU: the contracts of kernels/ops.h with device
// pointers. A launch allocates nothing, waits for nothing and may be captured in a graph. Each
// returns 0 or the cudaError_t of its launch. The device thread of a rank calls them.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

// Rows in device memory, `stride` elements apart.
struct DeviceRows {
  void* data = nullptr;
  DType dtype = DType::kBF16;  // float32 or bfloat16; fp8 where that is said
  int64_t stride = 0;
};

// out[t] = table[tokens[t]]. A token outside [0, vocab) gives a row of zeros (padding of a graph's
// batch).
struct EmbedLaunch {
  const int32_t* tokens = nullptr;  // [rows]
  DeviceRows table;                 // [vocab, cols]
  DeviceRows out;                   // [rows, cols]
  int64_t vocab = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};
int LaunchEmbed(const EmbedLaunch& args, CUstream_st* stream);

// out = v / sqrt(mean(v^2) + eps) * weight in groups of `group` columns (0: the whole row), v = x,
// or, with a residual, residual += x first and v that sum (x null: the residual alone).
struct RmsNormLaunch {
  DeviceRows x;
  float* residual = nullptr;  // [rows, cols] float32, updated; null: none
  int64_t residual_stride = 0;
  const float* weight = nullptr;  // [group or cols]; null: none
  float eps = 1e-6f;
  int64_t group = 0;
  DeviceRows out;  // may be x
  int64_t rows = 0;
  int64_t cols = 0;
};
int LaunchRmsNorm(const RmsNormLaunch& args, CUstream_st* stream);

// x += y.
struct AddLaunch {
  float* x = nullptr;
  int64_t x_stride = 0;
  DeviceRows y;
  int64_t rows = 0;
  int64_t cols = 0;
};
int LaunchAdd(const AddLaunch& args, CUstream_st* stream);

// to = from, times scale[row] where it is given.
int LaunchCopyRows(const DeviceRows& from, const DeviceRows& to, int64_t rows, int64_t cols,
                   const float* scale, CUstream_st* stream);

// See RopeArgs in kernels/ops.h. Positions on the device.
struct RopeLaunch {
  DeviceRows x;
  int64_t rows = 0;
  int64_t num_heads = 1;
  int64_t head_stride = 0;
  int64_t offset = 0;
  int64_t dim = 0;
  bool interleaved = false;
  bool deinterleave = false;
  const int32_t* positions = nullptr;  // [rows]
  const float* table = nullptr;        // [max_position, dim]: cos (dim / 2), then sin
  DeviceRows out;                      // of x's dtype; data null: in place
  int64_t out_head_stride = 0;
  int64_t out_offset = 0;
};
int LaunchRope(const RopeLaunch& args, CUstream_st* stream);

// cache[cache_rows[t]] = x[t]; a negative row is skipped.
struct KvWriteLaunch {
  DeviceRows x;
  const int64_t* cache_rows = nullptr;  // [rows]
  DeviceRows cache;
  int64_t rows = 0;
  int64_t cols = 0;
};
int LaunchKvWrite(const KvWriteLaunch& args, CUstream_st* stream);

// What MLA does to a new position, in one kernel: x[t] = [latent | rope part] -> the latent part
// normed, the rope part rotated, the row written to the cache (and nowhere else). And low-rank
// queries normed, in place. Of what it reads, the launch before it may write x and the queries
// alone.
struct MlaKvWriteLaunch {
  DeviceRows x;  // [rows, latent + rope]
  int64_t rows = 0;
  int64_t latent = 512;
  int64_t rope = 64;              // even, at most 256
  const float* weight = nullptr;  // [latent]
  float eps = 1e-6f;
  bool interleaved = false;
  bool deinterleave = false;
  const int32_t* positions = nullptr;   // [rows]
  const float* table = nullptr;         // [max_position, rope]
  const int64_t* cache_rows = nullptr;  // [rows]
  DeviceRows cache;    // [cache rows, latent + rope], or fp8 rows (kernels/latent_row.h)
  DeviceRows queries;  // [rows, query_cols]; data null: none
  int64_t query_cols = 0;
  const float* query_weight = nullptr;  // [query_cols]
  float query_eps = 1e-6f;
};
int LaunchMlaKvWrite(const MlaKvWriteLaunch& args, CUstream_st* stream);

// See PrepareHeadsArgs in kernels/ops.h: norm, rotation and cache write of all heads in one kernel.
// What is rotated is the norm in float32. Of what it reads, the launch before it may write x
// alone: positions, cache_rows and weights are read while that one still runs.
struct PrepareHeadsLaunch {
  DeviceRows x;  // [rows, (num_heads + 2 num_kv_heads) * head_dim]; only queries are written
  int64_t rows = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;             // even
  const float* q_weight = nullptr;  // [head_dim]; null: no norm
  const float* k_weight = nullptr;
  float eps = 1e-6f;
  bool interleaved = false;
  const int32_t* positions = nullptr;   // [rows]
  const float* table = nullptr;         // [max_position, head_dim]
  const int64_t* cache_rows = nullptr;  // [rows]; a negative one: keys and values go nowhere
  DeviceRows k_cache;                   // [cache rows, num_kv_heads * head_dim]
  DeviceRows v_cache;                   // of the same dtype
};
// A launch of so many heads takes them two by two. The bits of a row do not depend on it.
constexpr int64_t kManyHeads = 16384;
int LaunchPrepareHeads(const PrepareHeadsLaunch& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
