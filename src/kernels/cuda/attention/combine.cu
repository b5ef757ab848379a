// One warp a head of a row.
#include <cuda_runtime.h>

#include "kernels/cuda/attention/combine.h"
#include "kernels/cuda/attention/hopper.cuh"

namespace moebius::kernels::cuda {
namespace {

// kFours x 128 columns.
template <int kFours>
__global__ void __launch_bounds__(256) CombineKernel(const __grid_constant__ CombineArgs args) {
  const AttentionRow info = args.rows[blockIdx.x];
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (info.num_slots == 0) return;
  const int lane = threadIdx.x % 32;
  const int index = blockIdx.y * 8 + threadIdx.x / 32;  // query, head
  if (index >= info.queries * args.num_heads) return;
  const int64_t per_slot = static_cast<int64_t>(args.max_queries) * args.num_heads;
  const auto lse = [&](int i) {
    return args.partial_lse[(info.first_slot + i) * per_slot + index];
  };
  float top = -INFINITY;
  for (int i = lane; i < info.num_slots; i += 32) top = fmaxf(top, lse(i));
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  float4 sum[kFours] = {};
  float total = 0;
  for (int base = 0; base < info.num_slots; base += 32) {
    const int count = min(32, info.num_slots - base);
    const float mine = lane < count ? Exp2(lse(base + lane) - top) : 0.0f;
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const float weight = __shfl_sync(~0u, mine, i);
      total += weight;
      const int64_t at = (info.first_slot + base + i) * per_slot + index;
      const auto* from = reinterpret_cast<const float4*>(args.partial + at * args.width);
#pragma unroll
      for (int j = 0; j < kFours; ++j) {
        if (32 * j + lane >= args.width / 4) continue;
        const float4 x = from[32 * j + lane];
        sum[j].x += weight * x.x;
        sum[j].y += weight * x.y;
        sum[j].z += weight * x.z;
        sum[j].w += weight * x.w;
      }
    }
  }
  const float factor = info.num_slots > 0 ? 1.0f / total : 0.0f;
  const int64_t to_row = static_cast<int64_t>(info.row) * args.num_heads + index;
  auto* to = reinterpret_cast<uint2*>(static_cast<uint16_t*>(args.out) + to_row * args.width);
#pragma unroll
  for (int j = 0; j < kFours; ++j) {
    if (32 * j + lane >= args.width / 4) continue;
    to[32 * j + lane] = make_uint2(PackBf16(sum[j].x * factor, sum[j].y * factor),
                                   PackBf16(sum[j].z * factor, sum[j].w * factor));
  }
}

}  // namespace

int LaunchCombine(const CombineArgs& args, CUstream_st* stream) {
  if (args.num_items == 0) return cudaSuccess;
  if (args.width % 4 != 0 || args.width > 512) return cudaErrorInvalidValue;
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim =
      dim3(static_cast<unsigned>(args.num_items), (args.max_queries * args.num_heads + 7) / 8);
  config.blockDim = 256;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  auto* kernel = args.width <= 128   ? CombineKernel<1>
                 : args.width <= 256 ? CombineKernel<2>
                                     : CombineKernel<4>;
  return cudaLaunchKernelEx(&config, kernel, args);
}

}  // namespace moebius::kernels::cuda
