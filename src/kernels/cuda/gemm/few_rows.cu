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
  WeightRows w;
  int64_t w_batch;  // bytes
  void* out;
  int64_t out_stride;
  int64_t out_batch;
  int rows;
  int n;

  __device__ WeightRows Weights(unsigned batch) const {
    return {static_cast<const std::byte*>(w.data) + batch * w_batch, w.scales, w.units};
  }
};

template <class Unit, bool kGated, int kHeld, int kRows, typename Out>
__global__ void __launch_bounds__(32 * kWarps) FewRowsKernel(const __grid_constant__ Params p) {
  constexpr int kCount = kGated ? 2 : 1;
  const int column = blockIdx.x * kWarps + threadIdx.x / 32;
  // A warp without a column reads one that is there, and writes nothing.
  WarpWeights<Unit, kCount, kHeld> weights(p.Weights(blockIdx.y), min(column, p.n - 1), p.n);
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
constexpr int kShortUnits = 16;  // of bfloat16
constexpr int kShortLoads = 4;
constexpr int kShortColumns = 32 / kShortUnits * kShortLoads;

template <int kRows, typename Out>
__global__ void __launch_bounds__(32 * kWarps)
    FewShortRowsKernel(const __grid_constant__ Params p) {
  const int unit = threadIdx.x % kShortUnits;
  const int first =
      (blockIdx.x * kWarps + threadIdx.x / 32) * kShortColumns + threadIdx.x % 32 / kShortUnits;
  const auto column = [first](int i) { return first + i * (32 / kShortUnits); };
  const WeightRows weights = p.Weights(blockIdx.y);
  const auto* w = static_cast<const uint4*>(weights.data);
  uint4 held[kShortLoads];
#pragma unroll
  for (int i = 0; i < kShortLoads; ++i) {
    const bool is_there = unit < weights.units && column(i) < p.n;
    held[i] =
        is_there ? __ldcs(w + int64_t{column(i)} * weights.units + unit) : make_uint4(0, 0, 0, 0);
  }
  AwaitEarlier();
  uint4 x[kRows][1];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r][0] = LoadUnit(p.a + blockIdx.y * p.a_batch + r * p.a_stride, unit,
                       r < p.rows ? weights.units : 0);
  }
  Out* out = static_cast<Out*>(p.out) + blockIdx.y * p.out_batch;
#pragma unroll
  for (int i = 0; i < kShortLoads; ++i) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = Bf16Unit::Add(0, x[r], held[i]);
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

template <class Unit, bool kGated>
__global__ void __launch_bounds__(32 * kWarps)
    FewPlacesKernel(const __grid_constant__ FewPlacesLaunch p) {
  constexpr int kCount = kGated ? 2 : 1;
  if (!p.places_known) AwaitEarlier();
  const int place = blockIdx.y;
  const int n = static_cast<int>(p.n);
  const int column = blockIdx.x * kWarps + threadIdx.x / 32;
  const int64_t first_row = int64_t{SlotOf(p.offsets, p.num_slots, place)} * kCount * n;
  WarpWeights<Unit, kCount, kHeldOfPlaces> weights(
      {p.w, p.scales, static_cast<int>(p.k) / Unit::kElements}, first_row + min(column, n - 1), n);
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

// Rows that are loaded 16 bytes at a time.
bool IsWhole(const DeviceRows& rows, int64_t batch) {
  return rows.dtype == DType::kBF16 && reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 &&
         rows.stride % kInputsOfUnit == 0 && batch % kInputsOfUnit == 0;
}
// Weights likewise: bfloat16, or (scales given) e4m3 in whole blocks.
bool IsWhole(const void* w, int64_t batch, const float* scales, int64_t n, int64_t k) {
  if (reinterpret_cast<uintptr_t>(w) % 16 != 0) return false;
  if (scales != nullptr) return batch == 0 && n % 128 == 0 && k % 128 == 0;
  return batch % Bf16Unit::kElements == 0 && k % Bf16Unit::kElements == 0;
}

unsigned NumBlocks(int64_t n, int64_t of_block = kWarps) {
  return static_cast<unsigned>((n + of_block - 1) / of_block);
}

template <class Unit>
Params ParamsOf(const FewRowsLaunch& args) {
  return {.a = static_cast<const __nv_bfloat16*>(args.a.data),
          .a_stride = args.a.stride,
          .a_batch = args.a_batch,
          .w = {args.w, args.scales, static_cast<int>(args.k / Unit::kElements)},
          .w_batch = args.w_batch * (16 / Unit::kElements),
          .out = args.out.data,
          .out_stride = args.out.stride,
          .out_batch = args.out_batch,
          .rows = static_cast<int>(args.rows),
          .n = static_cast<int>(args.n)};
}

template <class Unit, bool kGated, int kHeld, typename Out>
cudaError_t Launch(const FewRowsLaunch& args, cudaStream_t stream) {
  auto* kernel = FewRowsKernel<Unit, kGated, kHeld, 1, Out>;
  if constexpr (!Unit::kHasScales) {
    if (args.rows == 2) kernel = FewRowsKernel<Unit, kGated, kHeld, 2, Out>;
  }
  const dim3 grid(NumBlocks(args.n), static_cast<unsigned>(args.batch));
  return LaunchEarly(kernel, grid, 32 * kWarps, 0, stream, ParamsOf<Unit>(args));
}

template <typename Out>
cudaError_t LaunchShort(const FewRowsLaunch& args, cudaStream_t stream) {
  auto* kernel = args.rows == 1 ? FewShortRowsKernel<1, Out> : FewShortRowsKernel<2, Out>;
  const dim3 grid(NumBlocks(args.n, kWarps * kShortColumns), static_cast<unsigned>(args.batch));
  return LaunchEarly(kernel, grid, 32 * kWarps, 0, stream, ParamsOf<Bf16Unit>(args));
}

// Registers hold a whole row of weights, where that fits: all of it comes while earlier launches
// end.
template <class Unit, typename Out>
cudaError_t LaunchFor(const FewRowsLaunch& args, cudaStream_t stream) {
  const int64_t loads = (args.k / Unit::kElements + 31) / 32;  // of a lane, for one row
  if (args.gated) {
    return loads <= 4 ? Launch<Unit, true, 4, Out>(args, stream)
                      : Launch<Unit, true, 8, Out>(args, stream);
  }
  return loads <= 4   ? Launch<Unit, false, 4, Out>(args, stream)
         : loads <= 8 ? Launch<Unit, false, 8, Out>(args, stream)
                      : Launch<Unit, false, 16, Out>(args, stream);
}

}  // namespace

bool FitsFewRows(const FewRowsLaunch& args) {
  return args.rows >= 1 && args.rows <= (args.scales == nullptr ? kMaxFewRows : 1) &&
         args.batch >= 1 && args.batch < 65536 && IsWhole(args.a, args.a_batch) &&
         IsWhole(args.w, args.w_batch, args.scales, args.n, args.k);
}

int LaunchFewRows(const FewRowsLaunch& args, CUstream_st* stream) {
  if (!FitsFewRows(args)) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  const bool is_short =
      !args.gated && args.scales == nullptr && args.k <= kShortUnits * Bf16Unit::kElements;
  const bool known = WithElement(args.out.dtype, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    error = is_short                 ? LaunchShort<Out>(args, stream)
            : args.scales == nullptr ? LaunchFor<Bf16Unit, Out>(args, stream)
                                     : LaunchFor<E4m3Unit, Out>(args, stream);
  });
  return known ? error : cudaErrorInvalidValue;
}

bool FitsFewPlaces(const FewPlacesLaunch& args) {
  const int64_t most = args.scales == nullptr ? kMaxFewPlaces : kMaxFewFp8Places;
  return args.places >= 1 && args.places <= most && args.out.dtype == DType::kBF16 &&
         IsWhole(args.a, 0) && IsWhole(args.w, 0, args.scales, args.n, args.k);
}

int LaunchFewPlaces(const FewPlacesLaunch& args, CUstream_st* stream) {
  if (!FitsFewPlaces(args)) return cudaErrorInvalidValue;
  const dim3 grid(NumBlocks(args.n), static_cast<unsigned>(args.places));
  auto* kernel = args.gated ? FewPlacesKernel<Bf16Unit, true> : FewPlacesKernel<Bf16Unit, false>;
  if (args.scales != nullptr) {
    kernel = args.gated ? FewPlacesKernel<E4m3Unit, true> : FewPlacesKernel<E4m3Unit, false>;
  }
  return LaunchEarly(kernel, grid, 32 * kWarps, 0, stream, args);
}

}  // namespace moebius::kernels::cuda
