#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/attention/mla_prefill.h"
#include "kernels/cuda/attention/widen_fp8.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {
namespace {

constexpr LatentRow kRow = {512, 64};
constexpr int kUnits = 576 * 2 / 16;  // of a row, eight numbers each

// Eight numbers of an fp8 row.
__device__ __forceinline__ uint4 WidenedUnit(const uint8_t* row, int unit) {
  const int first = unit * 8;
  if (first >= kRow.latent_dim) {
    return *reinterpret_cast<const uint4*>(row + kRow.rope_at() + (first - kRow.latent_dim) * 2);
  }
  const auto codes = *reinterpret_cast<const uint2*>(row + first);
  const auto* scales = reinterpret_cast<const float*>(row + kRow.scales_at());
  return ScaledBf16(codes.x, codes.y, scales[first / LatentRow::kBlock]);
}

// A row of blocks a sequence.
__global__ void __launch_bounds__(256)
    GatherLatentsKernel(const __grid_constant__ GatherLatentsLaunch p) {
  moebius::cuda::AwaitEarlier();
  if (blockIdx.x == 0 && blockIdx.y == 0) {
    for (int i = threadIdx.x; i < p.num_next; i += blockDim.x) p.next[i] = 0;
  }
  const LatentSequence s = p.sequences[blockIdx.y];
  const int32_t* table = p.block_table + s.seq * p.max_blocks;
  const auto* cache = static_cast<const uint8_t*>(p.cache);
  const int64_t row_bytes = p.is_fp8 ? p.cache_stride : p.cache_stride * 2;
  auto* out = static_cast<uint4*>(p.latents) + int64_t{s.first_key} * kUnits;
  constexpr int kTile = static_cast<int>(kLatentTile);
  const int count = (s.context + kTile - 1) / kTile * kTile * kUnits;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const int position = i / kUnits;
    uint4 value = make_uint4(0, 0, 0, 0);
    if (position < s.context) {
      const int64_t id = table[position / p.block_size];
      const int64_t row = id * p.block_size + position % p.block_size;
      const uint8_t* from = cache + row * row_bytes;
      if (id >= 0 && p.is_fp8) {
        value = WidenedUnit(from, i % kUnits);
      } else if (id >= 0) {
        value = reinterpret_cast<const uint4*>(from)[i % kUnits];
      }
    }
    out[i] = value;
  }
}

}  // namespace

int LaunchGatherLatents(const GatherLatentsLaunch& args, CUstream_st* stream) {
  if (args.num_sequences == 0) return cudaSuccess;
  if (args.cache_stride % (args.is_fp8 ? 16 : 8) != 0) return cudaErrorInvalidValue;
  // A thread copies a few units where a sequence is all of the pass.
  const dim3 grid(std::clamp(args.num_keys * kUnits / (256 * 4), 1, 1024), args.num_sequences);
  return moebius::cuda::LaunchEarly(GatherLatentsKernel, grid, 256, 0, stream, args);
}

}  // namespace moebius::kernels::cuda
