// What a step's inputs did not know while the step before still ran: the tokens it drew, as inputs
// of rows and in the lists of penalties.
#include <cuda_runtime.h>

#include "kernels/cuda/rows/sample.h"

namespace moebius::kernels::cuda {
namespace {

__global__ void ResolveTokensKernel(const __grid_constant__ ResolveLaunch p) {
  const int64_t row = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (row >= p.rows || p.tokens[row] >= 0) return;
  const int32_t token = p.tokens[row];
  // Where nothing could be drawn the request has failed and its row is dropped: any token does.
  p.tokens[row] = token == kPaddingToken ? -1 : max(p.sampled[-1 - token], 0);
}

// A warp a sample. `end` of a list counts the free place.
__global__ void ResolveListsKernel(const __grid_constant__ ResolveLaunch p) {
  const int64_t i = blockIdx.x;
  if (p.pending[i] < 0) return;
  const int32_t token = max(p.sampled[p.pending[i]], 0);
  DeviceSampleRow& wish = p.wishes[i];
  const int lane = threadIdx.x;
  const auto place_of = [&](const int32_t* list, int begin, int end) {
    int found = INT32_MAX;
    for (int j = begin + lane; j < end; j += 32) {
      if (list[j] == token) found = j;
    }
    for (int step = 16; step > 0; step /= 2) found = min(found, __shfl_xor_sync(~0u, found, step));
    return found;
  };
  if (wish.repetition_penalty != 1.0f) {
    const int last = wish.seen_end - 1;
    const bool known = place_of(p.seen_tokens, wish.seen_begin, last) != INT32_MAX;
    __syncwarp();
    if (lane == 0 && known) wish.seen_end = last;
    if (lane == 0 && !known) p.seen_tokens[last] = token;
  }
  if (wish.presence_penalty != 0.0f || wish.frequency_penalty != 0.0f) {
    const int last = wish.output_end - 1;
    const int at = place_of(p.output_tokens, wish.output_begin, last);
    __syncwarp();
    if (lane != 0) return;
    if (at != INT32_MAX) {
      ++p.output_counts[at];
      wish.output_end = last;
    } else {
      p.output_tokens[last] = token;
      p.output_counts[last] = 1;
    }
  }
}

}  // namespace

int LaunchResolve(const ResolveLaunch& args, CUstream_st* stream) {
  if (args.rows > 0) {
    ResolveTokensKernel<<<static_cast<unsigned>((args.rows + 255) / 256), 256, 0, stream>>>(args);
  }
  if (args.samples > 0) {
    ResolveListsKernel<<<static_cast<unsigned>(args.samples), 32, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace moebius::kernels::cuda
