// From the router's experts to slots, and the rows of a grouped product brought together.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/choose.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kChoosingWarps = 4;  // of a block, a row each

__global__ void __launch_bounds__(32 * kChoosingWarps)
    ChooseSlotsKernel(const __grid_constant__ ChooseSlotsLaunch p) {
  AwaitEarlier();
  const int64_t row = blockIdx.x * int64_t{kChoosingWarps} + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int lane = threadIdx.x % 32;
  PutSlots(p.choice, row, p.k, lane < p.k ? p.experts[row * p.k + lane] : 0);
}

constexpr int kScaleColumns = 128;  // that share a scale

// Rows as they are, 16 bytes a lane, kRowWarps warps a row: one where rows are many, so that each
// asks for much at a time; a whole block where they are few.
template <int kRowWarps>
__global__ void __launch_bounds__(256)
    GatherCopyKernel(const __grid_constant__ GatherLaunch p, int64_t row_words) {
  constexpr int kRows = 8 / kRowWarps;
  constexpr int kLanes = 32 * kRowWarps;
  constexpr int kHeld = kRowWarps == 1 ? 8 : 4;
  AwaitEarlier();
  const int64_t first = blockIdx.x * int64_t{kRows};
  const int64_t end = min(int64_t{*p.num_places}, first + kRows);
  const auto row_of = [&](int64_t place) {
    return p.pairs != nullptr ? p.pairs[place] / p.rows_per_pair : place;
  };
  const int lane = threadIdx.x % kLanes;
  if (const int64_t place = first + threadIdx.x / kLanes; place < end) {
    const auto size = static_cast<int64_t>(SizeOf(p.in.dtype));
    const auto* in = reinterpret_cast<const uint4*>(static_cast<const uint8_t*>(p.in.data) +
                                                    row_of(place) * p.in.stride * size);
    auto* out =
        reinterpret_cast<uint4*>(static_cast<uint8_t*>(p.out.data) + place * p.out.stride * size);
    for (int64_t w = lane; w < row_words; w += kHeld * kLanes) {
      uint4 held[kHeld];
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (w + i * kLanes < row_words) held[i] = in[w + i * kLanes];
      }
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (w + i * kLanes < row_words) out[w + i * kLanes] = held[i];
      }
    }
  }
  if (p.scales == nullptr) return;
  const int64_t blocks = p.cols / kScaleColumns;
  for (int64_t i = threadIdx.x; i < blocks * kRows; i += blockDim.x) {
    const int64_t place = first + i % kRows;
    const int64_t block = i / kRows;
    if (place < end) {
      p.out_scales[block * p.out_scale_stride + place] =
          p.scales[block * p.scale_stride + row_of(place)];
    }
  }
}

template <bool kFour, typename T>
__global__ void GatherKernel(const __grid_constant__ GatherLaunch p) {
  AwaitEarlier();
  const int64_t place = blockIdx.x;
  if (place >= *p.num_places) return;
  const int64_t pair = p.pairs != nullptr ? p.pairs[place] : place * p.rows_per_pair;
  const float scale = p.row_scale != nullptr ? p.row_scale[pair] : 1.0f;
  const T* in = static_cast<const T*>(p.in.data) + pair / p.rows_per_pair * p.in.stride;
  T* out = static_cast<T*>(p.out.data) + place * p.out.stride;
  constexpr int kStep = kFour ? 4 : 1;
  for (int64_t c = threadIdx.x * kStep; c < p.cols; c += blockDim.x * kStep) {
    if constexpr (kFour) {
      const float4 v = LoadFour(in + c);
      StoreFour(out + c, make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
    } else {
      StoreElement(out + c, LoadElement(in + c) * scale);
    }
  }
}

// Whether rows are whole words of 16 bytes.
bool IsWords(const DeviceRows& rows, int64_t cols) {
  const auto size = static_cast<int64_t>(SizeOf(rows.dtype));
  return cols * size % 16 == 0 && rows.stride * size % 16 == 0 &&
         reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
}

}  // namespace

int LaunchChooseSlots(const ChooseSlotsLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.k < 1 || args.k > 32) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>((args.rows + kChoosingWarps - 1) / kChoosingWarps);
  return LaunchEarly(ChooseSlotsKernel, blocks, 32 * kChoosingWarps, 0, stream, args);
}

int LaunchGather(const GatherLaunch& args, CUstream_st* stream) {
  if (args.places == 0 || args.cols == 0) return cudaSuccess;
  if (args.in.dtype != args.out.dtype) return cudaErrorInvalidValue;
  if (args.row_scale == nullptr && IsWords(args.in, args.cols) && IsWords(args.out, args.cols)) {
    constexpr int64_t kMany = 2048;  // places that fill the GPU with a warp each
    const int64_t words = args.cols * static_cast<int64_t>(SizeOf(args.in.dtype)) / 16;
    return args.places >= kMany
               ? LaunchEarly(GatherCopyKernel<1>, static_cast<unsigned>((args.places + 7) / 8), 256,
                             0, stream, args, words)
               : LaunchEarly(GatherCopyKernel<8>, static_cast<unsigned>(args.places), 256, 0,
                             stream, args, words);
  }
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(args.in.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool four = FitsFour(args.in, args.cols) && FitsFour(args.out, args.cols);
    auto* kernel = four ? GatherKernel<true, T> : GatherKernel<false, T>;
    error = LaunchEarly(kernel, static_cast<unsigned>(args.places), 256, 0, stream, args);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
