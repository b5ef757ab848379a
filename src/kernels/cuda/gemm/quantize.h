// Row quantisation and SwiGLU on the GPU. The number of rows is read on the device (for grouped
// rows: the last offset), so a captured graph serves every batch. Plain host functions without CUDA
// headers. A launch allocates nothing and waits for nothing. Each returns null, or a text that
// lives forever and says what was wrong.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace moebius::cuda {

struct RowsIn {
  const void* data;         // bf16 [capacity, columns], 16-byte aligned
  const int32_t* num_rows;  // device: rows that exist, at most capacity; null: all
  int64_t capacity;
  int columns;
  int64_t stride = 0;  // of rows, a multiple of 8; 0: columns
};

struct QuantizedRowsOut {
  void* data;            // e4m3 [capacity, k], 8-byte aligned
  float* scales;         // [k / 128, scale_stride]: block b of row r at b * scale_stride + r
  int64_t scale_stride;  // at least capacity
};

// Each 128 columns of a row: scale = max|x| / 448 (1 where all are zero), data = x / scale, to
// nearest even.
const char* LaunchQuantizeRows(const RowsIn& in, const QuantizedRowsOut& out, CUstream_st* stream);

// in.columns = 2 i, gate then up: out[r, c] = silu(gate[c]) * up[c] for c < i. Computed in float32.
const char* LaunchSwiGlu(const RowsIn& in, void* out_bf16, CUstream_st* stream);

// Both at once: the product is quantised before it ever reaches memory.
const char* LaunchSwiGluQuantize(const RowsIn& in, const QuantizedRowsOut& out,
                                 CUstream_st* stream);

}  // namespace moebius::cuda
