// The second kernel of MLA's split attention: what was cut is put together again, by a grid, as its
// partial results are large. No allocation, no wait; may be captured in a graph. Called by the
// attention launch.
#pragma once

#include <cstdint>

#include "kernels/tuning/attention_splits.h"

struct CUstream_st;

namespace moebius::kernels::cuda {

// out[row, head] = the item's partial outputs weighted by their shares of the softmax's
// denominator. Partial results: [slots, max_queries, num_heads, width] float32, each already
// divided by its own denominator, and its logarithm (base 2, maximum included) [slots, max_queries,
// num_heads].
struct CombineArgs {
  const AttentionRow* rows = nullptr;  // [num_rows]; the first with num_slots 0 ends the list
  int64_t num_rows = 0;
  int max_queries = 1;
  int num_heads = 0;
  int width = 0;  // a multiple of 4, at most 512
  const float* partial = nullptr;
  const float* partial_lse = nullptr;
  void* out = nullptr;  // [rows, num_heads, width] bfloat16
};
// 0 or the cudaError_t of the launch. Launched right behind the kernel that writes the partial
// results: it starts while that one still runs and waits for it on the device.
int LaunchCombine(const CombineArgs& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
