// Experts drawn by wished probabilities: a thread a logit.
#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/random.h"

namespace moebius::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void DrawLogitsKernel(const __grid_constant__ DrawLogitsLaunch p) {
  moebius::cuda::AwaitEarlier();
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= p.rows * p.num_experts) return;
  const int64_t row = i / p.num_experts;
  const auto expert = static_cast<int>(i % p.num_experts);
  const uint64_t seed = RoutingSeed(p.layer, p.tokens[row], p.positions[row]);
  const float uniform = OpenUniform(MixBits(seed + static_cast<uint64_t>(expert)));
  p.logits[row * p.logits_stride + expert] = p.log_probabilities[expert] - logf(-logf(uniform));
}

}  // namespace

int LaunchDrawLogits(const DrawLogitsLaunch& args, CUstream_st* stream) {
  const int64_t num = args.rows * args.num_experts;
  if (num == 0) return cudaSuccess;
  return moebius::cuda::LaunchEarly(DrawLogitsKernel,
                                    static_cast<unsigned>((num + kThreads - 1) / kThreads),
                                    kThreads, 0, stream, args);
}

}  // namespace moebius::kernels::cuda
