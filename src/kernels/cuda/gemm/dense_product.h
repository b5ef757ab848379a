// A dense matrix product as plain values, for host and device compilers alike.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace moebius::kernels::cuda {

// out[b] = a[b] w[b]^T (+ out[b]) for each b of a batch; a and w of one dtype, bfloat16 or float32;
// sums in float32. w_transposed: a[b] w[b], w[b] a [k, n]. Strides in elements.
struct DenseProduct {
  const void* a = nullptr;  // [rows, k]
  int64_t a_stride = 0;
  int64_t a_batch = 0;
  const void* w = nullptr;  // [n, k], without gaps
  int64_t w_batch = 0;
  bool w_transposed = false;
  DType dtype = DType::kBF16;
  void* out = nullptr;  // [rows, n]
  int64_t out_stride = 0;
  int64_t out_batch = 0;
  DType out_dtype = DType::kBF16;
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t batch = 1;
  bool accumulate = false;
};

}  // namespace moebius::kernels::cuda
