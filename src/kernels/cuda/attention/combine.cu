// A warp sums 128 columns of a head of a row: many loads in flight, whatever the number of pieces.
// As many blocks as the device holds at a time: rows may have been cut or not, and blocks of rows
// that were not would only cost their launch (256 rows of 128 heads: 20 us).
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/attention/combine.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMostBlocks = 1056;  // of 256 threads: eight a multiprocessor

// The warp's share `item` of one row.
__device__ __forceinline__ void CombineRow(const CombineArgs& args, const AttentionRow& info,
                                           int item) {
  const int lane = threadIdx.x % 32;
  const int chunks = (args.width + 127) / 128;
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

// Before the wait: not what the L1 cache has from the step before.
__device__ __forceinline__ AttentionRow RowAt(const AttentionRow* at) {
  return {__ldcg(&at->first_slot), __ldcg(&at->num_slots), __ldcg(&at->row), __ldcg(&at->queries)};
}

__global__ void __launch_bounds__(32 * kWarps)
    CombineKernel(const __grid_constant__ CombineArgs args, int blocks_a_row) {
  // The list came with the step's inputs: it may be read before earlier work is done.
  AttentionRow info = RowAt(args.rows + blockIdx.x / blocks_a_row);
  moebius::cuda::AwaitEarlier();
  for (int64_t at = blockIdx.x; info.num_slots != 0;) {
    const auto share = static_cast<int>(at % blocks_a_row);
    CombineRow(args, info, share * kWarps + static_cast<int>(threadIdx.x / 32));
    at += gridDim.x;
    if (at >= args.num_rows * blocks_a_row) return;
    info = RowAt(args.rows + at / blocks_a_row);
  }
}

int BlocksOfRow(const CombineArgs& args) {
  return (args.max_queries * args.num_heads * ((args.width + 127) / 128) + kWarps - 1) / kWarps;
}

}  // namespace

int LaunchCombine(const CombineArgs& args, CUstream_st* stream) {
  if (args.num_rows == 0) return cudaSuccess;
  if (args.width % 4 != 0 || args.width > 512) return cudaErrorInvalidValue;
  const int64_t blocks = std::min<int64_t>(args.num_rows * BlocksOfRow(args), kMostBlocks);
  return moebius::cuda::LaunchEarly(CombineKernel, static_cast<unsigned>(blocks), 32 * kWarps, 0,
                                    stream, args, BlocksOfRow(args));
}

}  // namespace moebius::kernels::cuda
