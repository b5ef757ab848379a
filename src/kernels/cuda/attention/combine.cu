// A warp sums 128 columns of a head of a row, several pieces at a time.
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
constexpr int kBlocksPerSm = 4;
constexpr int kMostBlocks = 132 * kBlocksPerSm;
// Loads that a warp has under way: a loop would wait for each of a few pieces.
constexpr int kPiecesAtOnce = 8;

// The warp's share `item` of one row.
__device__ __forceinline__ void CombineRow(const CombineArgs& args, const AttentionRow& info,
                                           int item) {
  const int lane = threadIdx.x % 32;
  const int chunks = (args.width + 127) / 128;
  const int index = item / chunks;  // query, head
  if (index >= info.queries * args.num_heads) return;
  // A lane past the width reads what another has, and stores nothing.
  const int column = item % chunks * 128 + lane * 4;
  const int readable = min(column, args.width - 4);
  const int64_t per_slot = static_cast<int64_t>(args.max_queries) * args.num_heads;
  const int64_t first = info.first_slot * per_slot + index;
  const auto lse = [&](int i) { return args.partial_lse[first + i * per_slot]; };
  float top = -INFINITY;
  for (int i = lane; i < info.num_slots; i += 32) top = fmaxf(top, lse(i));
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  float4 sum = make_float4(0, 0, 0, 0);
  float total = 0;
  for (int base = 0; base < info.num_slots; base += 32) {
    const int count = min(32, info.num_slots - base);
    const float weights = lane < count ? Exp2(lse(base + lane) - top) : 0.0f;
    for (int i = 0; i < count; i += kPiecesAtOnce) {
      float4 x[kPiecesAtOnce];
#pragma unroll
      for (int j = 0; j < kPiecesAtOnce; ++j) {
        const int64_t at = first + (base + min(i + j, count - 1)) * per_slot;
        x[j] = *reinterpret_cast<const float4*>(args.partial + at * args.width + readable);
      }
#pragma unroll
      for (int j = 0; j < kPiecesAtOnce; ++j) {
        if (i + j >= count) break;
        const float weight = __shfl_sync(~0u, weights, i + j);
        total += weight;
        sum.x += weight * x[j].x;
        sum.y += weight * x[j].y;
        sum.z += weight * x[j].z;
        sum.w += weight * x[j].w;
      }
    }
  }
  if (column >= args.width) return;
  const float factor = info.num_slots > 0 ? 1.0f / total : 0.0f;
  const int64_t to_row = static_cast<int64_t>(info.row) * args.num_heads + index;
  auto* to = static_cast<uint16_t*>(args.out) + to_row * args.width + column;
  *reinterpret_cast<uint2*>(to) = make_uint2(PackBf16(sum.x * factor, sum.y * factor),
                                             PackBf16(sum.z * factor, sum.w * factor));
}

// How many rows the list has; all threads of the block call. Before the wait: not what the L1 cache
// has from the step before.
__device__ __forceinline__ int NumRows(const CombineArgs& args) {
  __shared__ int end;
  if (threadIdx.x == 0) end = static_cast<int>(args.num_rows);
  __syncthreads();
  for (int i = threadIdx.x; i < args.num_rows; i += blockDim.x) {
    if (__ldcg(&args.rows[i].num_slots) != 0) continue;
    atomicMin(&end, i);
    break;
  }
  __syncthreads();
  return end;
}

__global__ void __launch_bounds__(32 * kWarps, kBlocksPerSm)
    CombineKernel(const __grid_constant__ CombineArgs args, int blocks_a_row) {
  // The list came with the step's inputs: it may be read before earlier work is done.
  const int num_rows = NumRows(args);
  moebius::cuda::AwaitEarlier();
  // All rows at a time: blocks side by side that read pieces of one row take up to twice as long.
  for (int at = blockIdx.x; at < num_rows * blocks_a_row; at += gridDim.x) {
    CombineRow(args, args.rows[at % num_rows],
               at / num_rows * kWarps + static_cast<int>(threadIdx.x / 32));
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
