// From the router's experts to slots, and the rows of a grouped product brought together.
#include <cuda_runtime.h>

#include <type_traits>

#include "base/math.h"
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
  PutSlots(p.choice, row, p.choice.tokens[row], p.k, lane < p.k ? p.experts[row * p.k + lane] : 0);
}

constexpr int kScaleColumns = 128;  // that share a scale

// Words of 16 bytes of a row, kHeld of a lane at a time: put(first, words) each, when these are
// loaded; word i is the row's first + i * kLanes.
template <int kHeld, int kLanes, typename Put>
__device__ void ForWords(const uint4* row, int64_t row_words, const Put& put) {
  for (int64_t w = threadIdx.x % kLanes; w < row_words; w += kHeld * kLanes) {
    uint4 words[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (w + i * kLanes < row_words) words[i] = row[w + i * kLanes];
    }
    put(w, words);
  }
}
template <int kHeld, int kLanes>
__device__ void StoreWords(uint4* row, int64_t row_words, int64_t w, const uint4 (&words)[kHeld]) {
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (w + i * kLanes < row_words) row[w + i * kLanes] = words[i];
  }
}
__device__ uint4* WordsOf(const DeviceRows& rows, int64_t row) {
  const auto size = static_cast<int64_t>(SizeOf(rows.dtype));
  return reinterpret_cast<uint4*>(static_cast<uint8_t*>(rows.data) + row * rows.stride * size);
}

// Rows as they are, a block a place: where places are few.
__global__ void __launch_bounds__(256)
    GatherCopyKernel(const __grid_constant__ GatherLaunch p, int64_t row_words) {
  AwaitEarlier();
  const int64_t place = blockIdx.x;
  if (place >= *p.num_places) return;
  const int64_t row = p.pairs != nullptr ? p.pairs[place] / p.rows_per_pair : place;
  uint4* const out = WordsOf(p.out, place);
  ForWords<4, 256>(WordsOf(p.in, row), row_words, [&](int64_t w, const uint4(&words)[4]) {
    StoreWords<4, 256>(out, row_words, w, words);
  });
  if (p.scales == nullptr) return;
  for (int64_t block = threadIdx.x; block < p.cols / kScaleColumns; block += blockDim.x) {
    p.out_scales[block * p.out_scale_stride + place] = p.scales[block * p.scale_stride + row];
  }
}

// The same, a warp a row, which is read once for all its places: where rows are many.
__global__ void __launch_bounds__(256)
    ScatterCopyKernel(const __grid_constant__ GatherLaunch p, int64_t row_words) {
  AwaitEarlier();
  const int64_t row = blockIdx.x * int64_t{8} + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int32_t* const places = p.places_of + row * p.rows_per_pair;
  ForWords<8, 32>(WordsOf(p.in, row), row_words, [&](int64_t w, const uint4(&words)[8]) {
    for (int64_t k = 0; k < p.rows_per_pair; ++k) {
      if (places[k] >= 0) StoreWords<8, 32>(WordsOf(p.out, places[k]), row_words, w, words);
    }
  });
  if (p.scales == nullptr) return;
  for (int64_t block = threadIdx.x % 32; block < p.cols / kScaleColumns; block += 32) {
    const float scale = p.scales[block * p.scale_stride + row];
    for (int64_t k = 0; k < p.rows_per_pair; ++k) {
      if (places[k] >= 0) p.out_scales[block * p.out_scale_stride + places[k]] = scale;
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
    constexpr int64_t kMany = 1024;  // rows that fill the GPU with a warp each
    const int64_t words = args.cols * static_cast<int64_t>(SizeOf(args.in.dtype)) / 16;
    return args.places_of != nullptr && args.rows >= kMany
               ? LaunchEarly(ScatterCopyKernel, static_cast<unsigned>(CeilDiv(args.rows, 8)), 256,
                             0, stream, args, words)
               : LaunchEarly(GatherCopyKernel, static_cast<unsigned>(args.places), 256, 0, stream,
                             args, words);
  }
  if (args.scales != nullptr) return cudaErrorInvalidValue;
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
