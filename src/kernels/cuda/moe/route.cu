// Router: a warp a row. Lane l holds experts l, l + 32, ...; the best is taken k times.
#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/choose.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kMaxExperts = 512;
constexpr int kWarps = 4;

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Order of floats as order of unsigned integers; both zeros are one, NaN counts as -inf.
__device__ uint32_t Key(float x) {
  if (isnan(x)) x = -INFINITY;
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

// The id of the largest key that is not yet taken, ties to the lowest id; marks it taken. kCount
// values a lane, `count` ids in all.
template <int kCount>
__device__ int TakeBest(const uint32_t (&keys)[kCount], uint32_t& taken, int lane, int count) {
  uint32_t best = 0;
  int id = INT32_MAX;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const bool open = lane + 32 * i < count && (taken >> i & 1) == 0;
    if (open && (id == INT32_MAX || keys[i] > best)) {
      best = keys[i];
      id = lane + 32 * i;
    }
  }
  const uint32_t top = __reduce_max_sync(~0u, id == INT32_MAX ? 0 : best);
  const int winner = __reduce_min_sync(~0u, id != INT32_MAX && best == top ? id : INT32_MAX);
  if (winner % 32 == lane) taken |= 1u << (winner / 32);
  return winner;
}

// The value of a group for its choice.
__device__ float GroupValue(const float* choice, int size, RouteGroups kind) {
  float first = -INFINITY;
  float second = -INFINITY;
  for (int i = 0; i < size; ++i) {
    const float v = choice[i];
    second = v > first ? first : fmaxf(second, v);
    first = fmaxf(first, v);
  }
  return kind == RouteGroups::kTop2Sum && size > 1 ? first + second : first;
}

// Scores of the row in `scores` (shared by the warp) and what the choice compares in `choice`.
template <int kCount>
__device__ void Score(const RouteTopKLaunch& args, const float* logits, int lane, float* scores,
                      float* choice) {
  float v[kCount];
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int e = lane + 32 * i;
    v[i] = e < args.num_experts ? logits[e] : -INFINITY;
    top = fmaxf(top, v[i]);
  }
  if (args.score == RouteScore::kSoftmax) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += v[i] = expf(v[i] - top);
    sum = WarpSum(sum);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] /= sum;
  } else if (args.score == RouteScore::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = Sigmoid(v[i]);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int e = lane + 32 * i;
    if (e >= args.num_experts) continue;
    scores[e] = v[i];
    choice[e] = args.bias != nullptr ? v[i] + args.bias[e] : v[i];
  }
  __syncwarp();
}

// Experts outside the best groups become -inf.
template <int kCount>
__device__ void KeepBestGroups(const RouteTopKLaunch& args, int lane, float* choice) {
  const int size = args.num_experts / args.num_groups;
  uint32_t keys[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int g = lane + 32 * i;
    keys[i] = g < args.num_groups ? Key(GroupValue(choice + g * size, size, args.groups)) : 0;
  }
  uint32_t taken = 0;
  for (int n = 0; n < args.num_top_groups; ++n) TakeBest(keys, taken, lane, args.num_groups);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int g = lane + 32 * i;
    if (g >= args.num_groups || (taken >> i & 1) != 0) continue;
    for (int e = g * size; e < (g + 1) * size; ++e) choice[e] = -INFINITY;
  }
  __syncwarp();
}

template <int kCount>
__global__ void __launch_bounds__(32 * kWarps)
    RouteKernel(const __grid_constant__ RouteTopKLaunch args) {
  AwaitEarlier();
  __shared__ float all_scores[kWarps][32 * kCount];
  __shared__ float all_choices[kWarps][32 * kCount];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int64_t row = blockIdx.x * int64_t{kWarps} + warp;
  if (row >= args.rows) return;
  float* scores = all_scores[warp];
  float* choice = all_choices[warp];
  Score<kCount>(args, args.logits + row * args.logits_stride, lane, scores, choice);
  if (args.groups != RouteGroups::kNone) KeepBestGroups<kCount>(args, lane, choice);
  uint32_t keys[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int e = lane + 32 * i;
    keys[i] = e < args.num_experts ? Key(choice[e]) : 0;
  }
  uint32_t taken = 0;
  float sum = args.score == RouteScore::kSigmoid ? 1e-20f : 0.0f;
  int mine = 0;
  float weight = 0;
  for (int j = 0; j < args.k; ++j) {
    const int expert = TakeBest(keys, taken, lane, args.num_experts);
    float w = scores[expert];
    if (args.score == RouteScore::kSigmoidOnTop) w = Sigmoid(w);
    sum += w;
    if (lane == j) {
      mine = expert;
      weight = w;
    }
  }
  if (lane < args.k) {
    if (args.normalize) weight /= sum;
    const int64_t pair = row * args.k + lane;
    args.experts[pair] = mine;
    args.weights[pair] = weight * args.scale;
  }
  if (args.choice.slots != nullptr) PutSlots(args.choice, row, args.k, mine);
}

}  // namespace

int LaunchRouteTopK(const RouteTopKLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.num_experts < args.k || args.num_experts > kMaxExperts || args.k < 1 || args.k > 32) {
    return cudaErrorInvalidValue;
  }
  if (args.groups != RouteGroups::kNone &&
      (args.num_groups < 1 || args.num_experts % args.num_groups != 0 ||
       args.num_top_groups > args.num_groups)) {
    return cudaErrorInvalidValue;
  }
  auto* kernel = args.num_experts <= 64    ? RouteKernel<2>
                 : args.num_experts <= 128 ? RouteKernel<4>
                 : args.num_experts <= 256 ? RouteKernel<8>
                                           : RouteKernel<16>;
  return LaunchEarly(kernel, static_cast<unsigned>((args.rows + kWarps - 1) / kWarps), 32 * kWarps,
                     0, stream, args);
}

}  // namespace moebius::kernels::cuda
