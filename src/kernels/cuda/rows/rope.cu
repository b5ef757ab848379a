// Rotary embedding: a warp one head of a row, or several where there are many, all pairs read
// before any is written (the deinterleaved form moves them).
#include <cuda_runtime.h>

#include <type_traits>

#include "base/math.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/cuda/rows/rotation.cuh"
#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

template <bool kAdjacent, typename T>
__device__ float2 LoadPair(const T* head, int2 at) {
  if constexpr (!kAdjacent) {
    return make_float2(LoadElement(head + at.x), LoadElement(head + at.y));
  } else if constexpr (sizeof(T) == 2) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(head + at.x));
  } else {
    return *reinterpret_cast<const float2*>(head + at.x);
  }
}
template <bool kAdjacent, typename T>
__device__ void StorePair(T* head, int2 at, float2 pair) {
  if constexpr (!kAdjacent) {
    StoreElement(head + at.x, pair.x);
    StoreElement(head + at.y, pair.y);
  } else if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<__nv_bfloat162*>(head + at.x) = __floats2bfloat162_rn(pair.x, pair.y);
  } else {
    *reinterpret_cast<float2*>(head + at.x) = pair;
  }
}

// Rows of heads, from the first one's column that is rotated on.
template <typename T>
struct RotatedHeads {
  T* x;
  int64_t stride;
  int64_t head_stride;
};

// kAdjacent: both of a pair lie side by side, before and after, at a multiple of their size.
template <int kPairs, int kHeads, bool kAdjacent, typename T>
__global__ void RopeKernel(RotatedHeads<const T> in, RotatedHeads<T> out, int64_t rows,
                           int num_heads, Rotation rotation) {
  AwaitEarlier();
  const int items = (num_heads + kHeads - 1) / kHeads;  // of a row
  const int item = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / 32;
  const int64_t row = item / items;
  if (row >= rows) return;
  const int first = item % items * kHeads;
  const int count = min(kHeads, num_heads - first);
  const T* const from = in.x + row * in.stride + first * in.head_stride;
  T* const to = out.x + row * out.stride + first * out.head_stride;
  const int lane = threadIdx.x % 32;
  // No condition stands between the loads, which so are asked for together: what is not there is
  // read again.
  float2 pairs[kHeads][kPairs];
  float2 angles[kPairs];
#pragma unroll
  for (int k = 0; k < kPairs; ++k) {
    const int i = min(lane + 32 * k, rotation.half - 1);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      pairs[h][k] =
          LoadPair<kAdjacent>(from + min(h, count - 1) * in.head_stride, rotation.From(i));
    }
    angles[k] = rotation.Angle(row, i);
  }
  __syncwarp();
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = lane + 32 * k;
      if (i >= rotation.half || h >= count) continue;
      StorePair<kAdjacent>(to + h * out.head_stride, rotation.To(i),
                           Rotated(angles[k], pairs[h][k]));
    }
  }
}

template <int kPairs, int kHeads, typename T>
auto RopeKernelOf(bool adjacent) {
  return adjacent ? RopeKernel<kPairs, kHeads, true, T> : RopeKernel<kPairs, kHeads, false, T>;
}

}  // namespace

int LaunchRope(const RopeLaunch& args, CUstream_st* stream) {
  constexpr int kHeads = 8;
  constexpr int64_t kMany = 16384;  // heads in all: warps of several of them still fill the GPU
  if (args.rows == 0 || args.num_heads == 0 || args.dim == 0) return cudaSuccess;
  if (args.dim % 2 != 0 || args.dim > 64 * kMaxPairs) return cudaErrorInvalidValue;
  const Rotation rotation = {static_cast<int>(args.dim / 2), args.interleaved, args.deinterleave,
                             args.positions, args.table};
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(args.x.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const RotatedHeads<const T> in = {static_cast<const T*>(args.x.data) + args.offset,
                                      args.x.stride, args.head_stride};
    const RotatedHeads<T> out =
        args.out.data == nullptr
            ? RotatedHeads<T>{static_cast<T*>(args.x.data) + args.offset, in.stride, in.head_stride}
            : RotatedHeads<T>{static_cast<T*>(args.out.data) + args.out_offset, args.out.stride,
                              args.out_head_stride};
    const bool several = args.dim <= 64 && args.rows * args.num_heads >= kMany;
    const auto is_even = [](const auto& heads) {
      return heads.stride % 2 == 0 && heads.head_stride % 2 == 0 &&
             reinterpret_cast<uintptr_t>(heads.x) % (2 * sizeof(T)) == 0;
    };
    const bool adjacent = args.interleaved && !args.deinterleave && is_even(in) && is_even(out);
    auto* kernel = several           ? RopeKernelOf<1, kHeads, T>(adjacent)
                   : args.dim <= 64  ? RopeKernelOf<1, 1, T>(adjacent)
                   : args.dim <= 128 ? RopeKernelOf<2, 1, T>(adjacent)
                                     : RopeKernelOf<kMaxPairs, 1, T>(adjacent);
    const int64_t warps = args.rows * CeilDiv(args.num_heads, several ? kHeads : 1);
    error = LaunchEarly(kernel, static_cast<unsigned>(CeilDiv(warps, 8)), 256, 0, stream, in, out,
                        args.rows, static_cast<int>(args.num_heads), rotation);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
