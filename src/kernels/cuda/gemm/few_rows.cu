#include "kernels/cuda/gemm/few_rows.h"

#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/gemm/few_inputs.cuh"
#include "kernels/cuda/gemm/weight_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

using tuning::kMostWarpsOfTile;

static_assert(kMaxFewRows == kMaxTileInputs);

// A block's shared memory: the partial sums of its warps but the first, then its inputs.
extern __shared__ float4 partial[];  // [warps - 1][32]
__device__ __forceinline__ void* SharedInputs() { return partial + (blockDim.x - 32); }

// The sums of a block's warps, in its first: whether this warp is it.
__device__ __forceinline__ bool SumWarps(float (&sums)[4]) {
  const int warps = blockDim.x / 32;
  if (warps == 1) return true;
  if (threadIdx.x >= 32) {
    partial[threadIdx.x - 32] = make_float4(sums[0], sums[1], sums[2], sums[3]);
  }
  __syncthreads();
  if (threadIdx.x >= 32) return false;
  for (int w = 1; w < warps; ++w) {
    const float4 add = partial[threadIdx.x + 32 * (w - 1)];
    sums[0] += add.x;
    sums[1] += add.y;
    sums[2] += add.z;
    sums[3] += add.w;
  }
  return true;
}

// The lane's columns of the block's tile are this and, if not gated, the one 8 further.
template <bool kGated>
__device__ __forceinline__ int FirstColumn() {
  return blockIdx.x * (kGated ? kTileRows / 2 : kTileRows) + threadIdx.x % 32 / 4;
}

// The tile of the weight rows from `first` on. A lane without a column reads one that is there.
template <bool kScaled, bool kGated>
__device__ __forceinline__ WeightTile<kScaled, kGated> TileOf(const WeightRows& w, int64_t first,
                                                              int n) {
  const int column = FirstColumn<kGated>();
  const int64_t low = first + min(column, n - 1);
  const int64_t high = kGated ? low + n : first + min(column + 8, n - 1);
  return WeightTile<kScaled, kGated>(w, low, high, threadIdx.x / 32, blockDim.x / 32);
}

// What a lane has of rows 2 t and 2 t + 1 of the output.
template <bool kGated, typename Out>
__device__ __forceinline__ void Store(const float (&sums)[4], float scale, int rows, int n,
                                      Out* out, int64_t stride) {
  const int column = FirstColumn<kGated>();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = threadIdx.x % 4 * 2 + i;
    if (row >= rows) continue;
    if constexpr (kGated) {
      if (column < n) {
        StoreElement(out + row * stride + column, GateUp(sums[i] * scale, sums[2 + i] * scale));
      }
    } else {
      if (column < n) StoreElement(out + row * stride + column, sums[i] * scale);
      if (column + 8 < n) StoreElement(out + row * stride + column + 8, sums[2 + i] * scale);
    }
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
  int k;

  __device__ WeightRows Weights(unsigned batch) const {
    return {static_cast<const std::byte*>(w.data) + batch * w_batch, w.scales, w.units};
  }
};

template <class Inputs, bool kGated, typename Out>
__global__ void __launch_bounds__(32 * kMostWarpsOfTile, 1)
    FewRowsKernel(const __grid_constant__ Params p) {
  auto tile = TileOf<Inputs::kScaled, kGated>(p.Weights(blockIdx.y), 0, p.n);
  AwaitEarlier();
  const Inputs inputs(p.a + blockIdx.y * p.a_batch, p.a_stride, p.rows, p.k, SharedInputs());
  float sums[4] = {};
  inputs.Multiply(tile, sums);
  if (!SumWarps(sums)) return;
  Store<kGated>(sums, 1, p.rows, p.n, static_cast<Out*>(p.out) + blockIdx.y * p.out_batch,
                p.out_stride);
}

// Short rows, of a product a head: half a warp has one, a warp kShortColumns of them at a time.
constexpr int kShortWarps = 8;
constexpr int kShortUnits = 16;  // of bfloat16
constexpr int kShortLoads = 4;
constexpr int64_t kMaxShortRows = 2;
constexpr int kShortColumns = 32 / kShortUnits * kShortLoads;

__device__ __forceinline__ float2 WidenPair(uint32_t bf16_pair) {
  return {__uint_as_float(bf16_pair << 16), __uint_as_float(bf16_pair & 0xffff0000u)};
}
__device__ __forceinline__ float ShortSum(const uint4& x, const uint4& w) {
  const uint32_t a[4] = {x.x, x.y, x.z, x.w};
  const uint32_t b[4] = {w.x, w.y, w.z, w.w};
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 input = WidenPair(a[i]);
    const float2 weight = WidenPair(b[i]);
    sum = fmaf(input.x, weight.x, sum);
    sum = fmaf(input.y, weight.y, sum);
  }
  return sum;
}
// Zero past the row's units.
__device__ __forceinline__ uint4 LoadShort(const __nv_bfloat16* row, int unit, int units) {
  return unit < units ? reinterpret_cast<const uint4*>(row)[unit] : make_uint4(0, 0, 0, 0);
}

template <int kRows, typename Out>
__global__ void __launch_bounds__(32 * kShortWarps)
    FewShortRowsKernel(const __grid_constant__ Params p) {
  const int unit = threadIdx.x % kShortUnits;
  const int first = (blockIdx.x * kShortWarps + threadIdx.x / 32) * kShortColumns +
                    threadIdx.x % 32 / kShortUnits;
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
  uint4 x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r] = LoadShort(p.a + blockIdx.y * p.a_batch + r * p.a_stride, unit,
                     r < p.rows ? weights.units : 0);
  }
  Out* out = static_cast<Out*>(p.out) + blockIdx.y * p.out_batch;
#pragma unroll
  for (int i = 0; i < kShortLoads; ++i) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = ShortSum(x[r], held[i]);
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
    // Not what the L1 cache has from the layer before, if this is before the wait.
    if (__ldcg(offsets + s) <= place && place < __ldcg(offsets + s + 1)) found = s;
  }
  return __reduce_max_sync(~0u, found);
}

template <class Inputs, bool kGated>
__global__ void __launch_bounds__(32 * kMostWarpsOfTile, 1)
    FewPlacesKernel(const __grid_constant__ FewPlacesLaunch p) {
  if (!p.places_known) AwaitEarlier();
  const int place = blockIdx.y;
  const int n = static_cast<int>(p.n);
  const int k = static_cast<int>(p.k);
  const int64_t slot = SlotOf(p.offsets, p.num_slots, place);
  auto tile = TileOf<Inputs::kScaled, kGated>({p.w, p.scales, k / Inputs::kElements},
                                              slot * (kGated ? 2 * n : n), n);
  if (p.places_known) AwaitEarlier();
  if (place >= p.offsets[p.num_slots]) return;
  const int64_t pair = p.pairs != nullptr ? p.pairs[place] : place * p.rows_per_pair;
  const Inputs inputs(
      static_cast<const __nv_bfloat16*>(p.a.data) + pair / p.rows_per_pair * p.a.stride, 0, 1, k,
      SharedInputs());
  float sums[4] = {};
  inputs.Multiply(tile, sums);
  if (!SumWarps(sums)) return;
  Store<kGated>(sums, p.row_scale != nullptr ? p.row_scale[pair] : 1.0f, 1, n,
                static_cast<__nv_bfloat16*>(p.out.data) + place * p.out.stride, 0);
}

constexpr int64_t kInputsOfLoad = 8;
// Rows that are loaded 16 bytes at a time.
bool IsWhole(const DeviceRows& rows, int64_t batch) {
  return rows.dtype == DType::kBF16 && reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 &&
         rows.stride % kInputsOfLoad == 0 && batch % kInputsOfLoad == 0;
}
// Weights likewise: bfloat16, or (scales given) e4m3 in whole blocks.
bool IsWhole(const void* w, int64_t batch, const float* scales, int64_t n, int64_t k) {
  if (reinterpret_cast<uintptr_t>(w) % 16 != 0) return false;
  if (scales != nullptr) return batch == 0 && n % 128 == 0 && k % 128 == 0;
  return batch % Bf16Inputs::kElements == 0 && k % Bf16Inputs::kElements == 0;
}

size_t PartialBytes(int warps) { return (warps - 1) * 32 * sizeof(float4); }
// Whether a block's shared memory holds so many rows in fp8.
bool HoldsInputs(const float* scales, int64_t rows, int64_t k) {
  constexpr size_t kMaxShared = 227 * 1024;
  return scales == nullptr ||
         PartialBytes(kMostWarpsOfTile) + E4m3Inputs::SharedBytes(rows, k) <= kMaxShared;
}

// A block for each tile of each product, of `rows` rows.
template <class Inputs, typename Args>
cudaError_t LaunchTiles(void (*kernel)(Args), int64_t products, int64_t rows, int64_t n, int64_t k,
                        bool gated, int num_sms, cudaStream_t stream, const Args& args) {
  const int64_t columns = gated ? kTileRows / 2 : kTileRows;
  const int64_t tiles = (n + columns - 1) / columns;
  const int warps = tuning::WarpsOfTile(tiles, products, k / Inputs::kElements * 16, num_sms);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(products));
  const size_t shared = PartialBytes(warps) + Inputs::SharedBytes(rows, k);
  if (shared > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess) return error;
  }
  return LaunchEarly(kernel, grid, 32 * warps, shared, stream, args);
}

template <class Inputs>
Params ParamsOf(const FewRowsLaunch& args) {
  return {.a = static_cast<const __nv_bfloat16*>(args.a.data),
          .a_stride = args.a.stride,
          .a_batch = args.a_batch,
          .w = {args.w, args.scales, static_cast<int>(args.k / Inputs::kElements)},
          .w_batch = args.w_batch * (16 / Inputs::kElements),
          .out = args.out.data,
          .out_stride = args.out.stride,
          .out_batch = args.out_batch,
          .rows = static_cast<int>(args.rows),
          .n = static_cast<int>(args.n),
          .k = static_cast<int>(args.k)};
}

template <typename Out>
cudaError_t LaunchShort(const FewRowsLaunch& args, cudaStream_t stream) {
  auto* kernel = args.rows == 1 ? FewShortRowsKernel<1, Out> : FewShortRowsKernel<2, Out>;
  const int64_t columns = kShortWarps * kShortColumns;
  const dim3 grid(static_cast<unsigned>((args.n + columns - 1) / columns),
                  static_cast<unsigned>(args.batch));
  return LaunchEarly(kernel, grid, 32 * kShortWarps, 0, stream, ParamsOf<Bf16Inputs>(args));
}

template <class Inputs, typename Out>
cudaError_t LaunchFor(const FewRowsLaunch& args, cudaStream_t stream) {
  auto* kernel = args.gated ? FewRowsKernel<Inputs, true, Out> : FewRowsKernel<Inputs, false, Out>;
  return LaunchTiles<Inputs>(kernel, args.batch, args.rows, args.n, args.k, args.gated,
                             args.num_sms, stream, ParamsOf<Inputs>(args));
}

template <class Inputs>
cudaError_t LaunchFor(const FewPlacesLaunch& args, cudaStream_t stream) {
  auto* kernel = args.gated ? FewPlacesKernel<Inputs, true> : FewPlacesKernel<Inputs, false>;
  return LaunchTiles<Inputs>(kernel, args.places, 1, args.n, args.k, args.gated, args.num_sms,
                             stream, args);
}

}  // namespace

bool FitsFewRows(const FewRowsLaunch& args) {
  return args.rows >= 1 && args.rows <= kMaxFewRows && args.batch >= 1 && args.batch < 65536 &&
         IsWhole(args.a, args.a_batch) &&
         IsWhole(args.w, args.w_batch, args.scales, args.n, args.k) &&
         HoldsInputs(args.scales, args.rows, args.k);
}

int LaunchFewRows(const FewRowsLaunch& args, CUstream_st* stream) {
  if (!FitsFewRows(args)) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  const bool is_short = !args.gated && args.scales == nullptr && args.rows <= kMaxShortRows &&
                        args.k <= kShortUnits * Bf16Inputs::kElements;
  const bool known = WithElement(args.out.dtype, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    error = is_short                 ? LaunchShort<Out>(args, stream)
            : args.scales == nullptr ? LaunchFor<Bf16Inputs, Out>(args, stream)
                                     : LaunchFor<E4m3Inputs, Out>(args, stream);
  });
  return known ? error : cudaErrorInvalidValue;
}

bool FitsFewPlaces(const FewPlacesLaunch& args) {
  return args.places >= 1 && args.places <= kMaxFewPlaces && args.out.dtype == DType::kBF16 &&
         IsWhole(args.a, 0) && IsWhole(args.w, 0, args.scales, args.n, args.k) &&
         HoldsInputs(args.scales, 1, args.k);
}

int LaunchFewPlaces(const FewPlacesLaunch& args, CUstream_st* stream) {
  if (!FitsFewPlaces(args)) return cudaErrorInvalidValue;
  return args.scales == nullptr ? LaunchFor<Bf16Inputs>(args, stream)
                                : LaunchFor<E4m3Inputs>(args, stream);
}

}  // namespace moebius::kernels::cuda
