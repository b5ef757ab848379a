// A warp sums 128 columns of a head of a row: many loads in flight, whatever the number of pieces.
#include <cuda_runtime.h>

#include "kernels/cuda/attention/combine.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

__global__ void __launch_bounds__(256) CombineKernel(const __grid_constant__ CombineArgs args) {
  moebius::cuda::AwaitEarlier();
  const AttentionRow info = args.rows[blockIdx.x];
  if (info.num_slots == 0) return;
  const int lane = threadIdx.x % 32;
  const int chunks = (args.width + 127) / 128;
  const int item = blockIdx.y * 8 + threadIdx.x / 32;
  const int index = item / chunks;  // query, head
  if (index >= info.queries * args.num_heads) return;
  const int column = item % chunks * 128 + lane * 4;
  const bool mine = column < args.width;
  const int64_t per_slot = static_cast<int64_t>(args.max_queries) * args.num_heads;
  const auto lse = [&](int i) {
    return args.partial_lse[(info.first_slot + i) * per_slot + index];
  };
  float top = -INFINITY;
  for (int i = lane; i < info.num_slots; i += 32) top = fmaxf(top, lse(i));
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  float4 sum = make_float4(0, 0, 0, 0);
  float total = 0;
  for (int base = 0; base < info.num_slots; base += 32) {
    const int count = min(32, info.num_slots - base);
    const float weights = lane < count ? Exp2(lse(base + lane) - top) : 0.0f;
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float weight = __shfl_sync(~0u, weights, i);
      total += weight;
      const int64_t at = (info.first_slot + base + i) * per_slot + index;
      const float4 x =
          mine ? *reinterpret_cast<const float4*>(args.partial + at * args.width + column)
               : make_float4(0, 0, 0, 0);
      sum.x += weight * x.x;
      sum.y += weight * x.y;
      sum.z += weight * x.z;
      sum.w += weight * x.w;
    }
  }
  const float factor = info.num_slots > 0 ? 1.0f / total : 0.0f;
  const int64_t to_row = static_cast<int64_t>(info.row) * args.num_heads + index;
  if (!mine) return;
  auto* to = static_cast<uint16_t*>(args.out) + to_row * args.width + column;
  *reinterpret_cast<uint2*>(to) = make_uint2(PackBf16(sum.x * factor, sum.y * factor),
                                             PackBf16(sum.z * factor, sum.w * factor));
}

}  // namespace

int LaunchCombine(const CombineArgs& args, CUstream_st* stream) {
  if (args.num_rows == 0) return cudaSuccess;
  if (args.width % 4 != 0 || args.width > 512) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(args.num_rows),
                  (args.max_queries * args.num_heads * ((args.width + 127) / 128) + 7) / 8);
  return moebius::cuda::LaunchEarly(CombineKernel, grid, 256, 0, stream, args);
}

}  // namespace moebius::kernels::cuda
