// What a query sees of its context, where that is bounded at its begin. Device code.
#pragma once

namespace moebius::kernels::cuda {

// The first position that the last of [0, context) sees. window, chunk: as in GqaShape; 0: none.
template <typename T>
__device__ __forceinline__ int FirstVisible(T window, T chunk, int context) {
  T first = 0;
  if (window > 0) first = context - window;
  if (chunk > 0) {
    const T of_chunk = (context - 1) / chunk * chunk;
    first = first > of_chunk ? first : of_chunk;
  }
  return first > 0 ? static_cast<int>(first) : 0;
}

}  // namespace moebius::kernels::cuda
