// Elements in vectors of 16 bytes, for sums over ranks. Device code only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace moebius::cuda::exchange {

// What the data is made of: bf16 as 16 bits, float32 as 32. kWhole: all parts are whole vectors of
// 16 bytes, where vectors may lie.
template <typename W, bool kWholeVectors>
struct Format {
  using Word = W;
  static constexpr bool kWhole = kWholeVectors;
  static constexpr int kColumns = 16 / sizeof(Word);
};

// Elements of a format that lie behind each other; the last vector may have fewer than the others.
template <typename F>
struct Part {
  typename F::Word* data;
  int64_t count;

  __device__ __forceinline__ bool Has(int64_t vector) const { return vector * F::kColumns < count; }
  __device__ __forceinline__ uint4 Load(int64_t vector) const {
    if constexpr (F::kWhole) {
      return reinterpret_cast<const uint4*>(data)[vector];
    } else {
      typename F::Word words[F::kColumns];
#pragma unroll
      for (int i = 0; i < F::kColumns; ++i) {
        const int64_t at = vector * F::kColumns + i;
        words[i] = at < count ? data[at] : 0;
      }
      uint4 v;
      memcpy(&v, words, sizeof(v));
      return v;
    }
  }
  __device__ __forceinline__ void Store(int64_t vector, const uint4& v) const {
    if constexpr (F::kWhole) {
      reinterpret_cast<uint4*>(data)[vector] = v;
    } else {
      typename F::Word words[F::kColumns];
      memcpy(words, &v, sizeof(v));
#pragma unroll
      for (int i = 0; i < F::kColumns; ++i) {
        const int64_t at = vector * F::kColumns + i;
        if (at < count) data[at] = words[i];
      }
    }
  }
};

}  // namespace moebius::cuda::exchange
