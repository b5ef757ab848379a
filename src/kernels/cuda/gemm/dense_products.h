// Dense matrix products by cuBLASLt, which is looked for when the program runs: without it our own
// kernels serve. Owned by a rank; called by its device thread. A product allocates nothing but, the
// first time it sees a shape, a plan on the host; it waits for nothing and may be captured in a
// graph. Plain header, no CUDA.
#pragma once

#include <memory>

#include "base/result.h"
#include "kernels/cuda/gemm/dense_product.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

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
