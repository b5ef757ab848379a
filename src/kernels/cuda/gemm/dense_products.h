// Dense matrix products by cuBLASLt, which is looked for when the program runs: without it our own
// kernels serve. Owned by a rank; called by its device thread. A product allocates nothing but, the
// first time it sees a shape, a plan on the host; it waits for nothing and may be captured in a
// graph. Plain header, no CUDA.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "tensor/dtype.h"

struct CUstream_st;

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

class DenseProducts {
 public:
  // kUnavailable: the library is not there (the message says what was looked for), or refuses.
  static Result<std::unique_ptr<DenseProducts>> Create();
  ~DenseProducts();

  // Null, or a text that lives forever. `unserved` instead where the library has no kernel for it.
  static const char* const kUnserved;
  const char* Run(const DenseProduct& product, CUstream_st* stream);

 private:
  struct Impl;
  explicit DenseProducts(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moebius::kernels::cuda
