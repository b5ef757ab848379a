// Matrix products of any shape, dtype and stride, in float32 on the ordinary cores: what no tuned
// kernel takes (float32 models, widths that are no multiple of 128). A launch allocates nothing,
// waits for nothing and may be captured in a graph. Plain host function without CUDA headers;
// called by the device thread of a rank.
#pragma once

#include <cstdint>

#include "kernels/cuda/rows/rows.h"
#include "tensor/dtype.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

// out[b][r, :] = a[b][r, :] w[b]^T for each b of a batch (heads), or for each group b of rows
// [offsets[b], offsets[b + 1]) of one `a` and one `out` (expert slots).
struct AnyGemmLaunch {
  DeviceRows a;                   // [rows, k]
  int64_t a_batch = 0;            // elements from one of the batch to the next
  const void* w = nullptr;        // [n, k]
  DType w_dtype = DType::kBF16;   // float32, bfloat16 or fp8
  int64_t w_batch = 0;            // elements
  bool w_transposed = false;      // [k, n]
  const float* scales = nullptr;  // fp8: [n / 128, k / 128]
  int64_t scale_batch = 0;
  const float* bias = nullptr;  // [n]
  DeviceRows out;               // [rows, n]
  int64_t out_batch = 0;
  const int32_t* offsets = nullptr;  // null: a batch
  int64_t rows = 0;                  // of each of the batch; of all groups at most
  int64_t n = 0;
  int64_t k = 0;
  int64_t batch = 1;
  bool accumulate = false;
};
// 0 or the cudaError_t of the launch.
int LaunchAnyGemm(const AnyGemmLaunch& args, CUstream_st* stream);

// out[r, c] = silu(in[r, c]) * in[r, n + c] for c < n, in float32. num_rows: on the device, how
// many of `rows` exist; null: all.
struct GatedLaunch {
  DeviceRows in;   // [rows, 2 n]
  DeviceRows out;  // [rows, n]
  const int32_t* num_rows = nullptr;
  int64_t rows = 0;
  int64_t n = 0;
};
int LaunchGated(const GatedLaunch& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
