#include "kernels/cuda/gemm/few_rows.h"

#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/gemm/warp_weights.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kWarps = 8;
constexpr int kHeldOfPlaces = 4;  // loads of a lane at a time, where many blocks share a GPU

__device__ __forceinline__ float Gated(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}
// What becomes of row r's sums: the one, or gate and up.
template <int kCount, int kRows>
__device__ __forceinline__ float Finish(const float (&sums)[kCount][kRows], int r,
                                        float scale = 1) {
  if constexpr (kCount == 1) {
    return sums[0][r] * scale;
  } else {
    return Gated(sums[0][r] * scale, sums[1][r] * scale);
  }
}

struct Params {
  const __nv_bfloat16* a;
  int64_t a_stride;
  int64_t a_batch;
  const __nv_bfloat16* w;
  int64_t w_batch;
  void* out;
  int64_t out_stride;
  int64_t out_batch;
  int rows;
  int n;
  int units;  // of k
};

template <bool kGated, int kHeld, int kRows, typename Out>
__global__ void __launch_bounds__(32 * kWarps) FewRowsKernel(const __grid_constant__ Params p) {
  constexpr int kCount = kGated ? 2 : 1;
  const int column = blockIdx.x * kWarps + threadIdx.x / 32;
  // A warp without a column reads one that is there, and writes nothing.
  WarpWeights<kCount, kHeld> weights(p.w + blockIdx.y * p.w_batch, min(column, p.n - 1), p.n,
                                     p.units);
  weights.Load(threadIdx.x % 32);
  AwaitEarlier();
  if (column >= p.n) return;
  float sums[kCount][kRows] = {};
  weights.template Multiply<kRows>(p.a + blockIdx.y * p.a_batch, p.a_stride, p.rows, sums);
  Out* out = static_cast<Out*>(p.out) + blockIdx.y * p.out_batch + column;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (threadIdx.x % 32 != r || r >= p.rows) continue;
    StoreElement(out + r * p.out_stride, Finish(sums, r));
  }
}

// Short rows, of a product a head: half a warp has one, a warp kShortColumns of them at a time.
constexpr int kShortUnits = 16;
constexpr int kShortLoads = 4;
constexpr int kShortColumns = 32 / kShortUnits * kShortLoads;

template <int kRows, typename Out>
__global__ void __launch_bounds__(32 * kWarps)
    FewShortRowsKernel(const __grid_constant__ Params p) {
  const int unit = threadIdx.x % kShortUnits;
  const int first =
      (blockIdx.x * kWarps + threadIdx.x / 32) * kShortColumns + threadIdx.x % 32 / kShortUnits;
  const auto column = [first](int i) { return first + i * (32 / kShortUnits); };
  const auto* w = reinterpret_cast<const uint4*>(p.w + blockIdx.y * p.w_batch);
  uint4 held[kShortLoads];
#pragma unroll
  for (int i = 0; i < kShortLoads; ++i) {
    const bool is_there = unit < p.units && column(i) < p.n;
    held[i] = is_there ? __ldcs(w + int64_t{column(i)} * p.units + unit) : make_uint4(0, 0, 0, 0);
  }
  AwaitEarlier();
  uint4 x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r] = LoadUnit(p.a + blockIdx.y * p.a_batch + r * p.a_stride, unit, r < p.rows ? p.units : 0);
  }
  Out* out = static_cast<Out*>(p.out) + blockIdx.y * p.out_batch;
#pragma unroll
  for (int i = 0; i < kShortLoads; ++i) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0;
      AddProducts(sum, x[r], held[i]);
#pragma unroll
      for (int mask = kShortUnits / 2; mask > 0; mask /= 2) {
        sum += __shfl_xor_sync(~0u, sum, mask);
      }
      if (unit == r && r < p.rows && column(i) < p.n) {
        StoreElement(out + r * p.out_stride + column(i), sum);
      }
    }
  }
}

// The slot that has place `place`; the whole warp calls.
__device__ int SlotOf(const int32_t* offsets, int num_slots, int place) {
  int found = 0;
  for (int s = threadIdx.x % 32; s < num_slots; s += 32) {
    if (offsets[s] <= place && place < offsets[s + 1]) found = s;
  }
  return __reduce_max_sync(~0u, found);
}

template <bool kGated>
__global__ void __launch_bounds__(32 * kWarps)
    FewPlacesKernel(const __grid_constant__ FewPlacesLaunch p) {
  constexpr int kCount = kGated ? 2 : 1;
  if (!p.places_known) AwaitEarlier();
  const int place = blockIdx.y;
  const int n = static_cast<int>(p.n);
  const int column = blockIdx.x * kWarps + threadIdx.x / 32;
  const int64_t first_row = int64_t{SlotOf(p.offsets, p.num_slots, place)} * kCount * n;
  WarpWeights<kCount, kHeldOfPlaces> weights(p.w, first_row + min(column, n - 1), n,
                                             static_cast<int>(p.k) / kUnit);
  weights.Load(threadIdx.x % 32);
  if (p.places_known) AwaitEarlier();
  if (place >= p.offsets[p.num_slots] || column >= n) return;
  const int64_t pair = p.pairs != nullptr ? p.pairs[place] : place * p.rows_per_pair;
  float sums[kCount][1] = {};
  weights.template Multiply<1>(
      static_cast<const __nv_bfloat16*>(p.a.data) + pair / p.rows_per_pair * p.a.stride, 0, 1,
      sums);
  if (threadIdx.x % 32 != 0) return;
  const float scale = p.row_scale != nullptr ? p.row_scale[pair] : 1.0f;
  StoreElement(static_cast<__nv_bfloat16*>(p.out.data) + place * p.out.stride + column,
               Finish(sums, 0, scale));
}

bool IsWhole(const void* data, int64_t stride, int64_t batch) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kUnit == 0 && batch % kUnit == 0;
}

unsigned NumBlocks(int64_t n, int64_t of_block = kWarps) {
  return static_cast<unsigned>((n + of_block - 1) / of_block);
}

Params ParamsOf(const FewRowsLaunch& args) {
  return {static_cast<const __nv_bfloat16*>(args.a.data),
          args.a.stride,
          args.a_batch,
          static_cast<const __nv_bfloat16*>(args.w),
          args.w_batch,
          args.out.data,
          args.out.stride,
          args.out_batch,
          static_cast<int>(args.rows),
          static_cast<int>(args.n),
          static_cast<int>(args.k / kUnit)};
}

template <bool kGated, int kHeld, typename Out>
cudaError_t Launch(const FewRowsLaunch& args, cudaStream_t stream) {
  auto* kernel =
      args.rows == 1 ? FewRowsKernel<kGated, kHeld, 1, Out> : FewRowsKernel<kGated, kHeld, 2, Out>;
  const dim3 grid(NumBlocks(args.n), static_cast<unsigned>(args.batch));
  return LaunchEarly(kernel, grid, 32 * kWarps, 0, stream, ParamsOf(args));
}

template <typename Out>
cudaError_t LaunchShort(const FewRowsLaunch& args, cudaStream_t stream) {
  auto* kernel = args.rows == 1 ? FewShortRowsKernel<1, Out> : FewShortRowsKernel<2, Out>;
  const dim3 grid(NumBlocks(args.n, kWarps * kShortColumns), static_cast<unsigned>(args.batch));
  return LaunchEarly(kernel, grid, 32 * kWarps, 0, stream, ParamsOf(args));
}

// Registers hold a whole row of weights, where that fits: all of it comes while earlier launches
// end.
template <typename Out>
cudaError_t LaunchFor(const FewRowsLaunch& args, cudaStream_t stream) {
  const int64_t loads = (args.k / kUnit + 31) / 32;  // of a lane, for one row
  if (!args.gated && args.k <= kShortUnits * kUnit) return LaunchShort<Out>(args, stream);
  if (args.gated) {
    return loads <= 4 ? Launch<true, 4, Out>(args, stream) : Launch<true, 8, Out>(args, stream);
  }
  return loads <= 4   ? Launch<false, 4, Out>(args, stream)
         : loads <= 8 ? Launch<false, 8, Out>(args, stream)
                      : Launch<false, 16, Out>(args, stream);
}

}  // namespace

bool FitsFewRows(const FewRowsLaunch& args) {
  return args.rows >= 1 && args.rows <= kMaxFewRows && args.a.dtype == DType::kBF16 &&
         args.batch >= 1 && args.batch < 65536 && args.k % kUnit == 0 &&
         IsWhole(args.a.data, args.a.stride, args.a_batch) && IsWhole(args.w, 0, args.w_batch);
}

int LaunchFewRows(const FewRowsLaunch& args, CUstream_st* stream) {
  if (!FitsFewRows(args)) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(args.out.dtype, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    error = LaunchFor<Out>(args, stream);
  });
  return known ? error : cudaErrorInvalidValue;
}

bool FitsFewPlaces(const FewPlacesLaunch& args) {
  return args.places >= 1 && args.places <= kMaxFewPlaces && args.a.dtype == DType::kBF16 &&
         args.out.dtype == DType::kBF16 && args.k % kUnit == 0 &&
         IsWhole(args.a.data, args.a.stride, 0) && IsWhole(args.w, 0, 0);
}

int LaunchFewPlaces(const FewPlacesLaunch& args, CUstream_st* stream) {
  if (!FitsFewPlaces(args)) return cudaErrorInvalidValue;
  const dim3 grid(NumBlocks(args.n), static_cast<unsigned>(args.places));
  auto* kernel = args.gated ? FewPlacesKernel<true> : FewPlacesKernel<false>;
  return LaunchEarly(kernel, grid, 32 * kWarps, 0, stream, args);
}

}  // namespace moebius::kernels::cuda
