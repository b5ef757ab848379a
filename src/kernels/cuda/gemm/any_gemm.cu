// 64 x 64 tiles through shared memory, 16 of K at a time, 4 x 4 results a thread.
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/gemm/any_gemm.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kTile = 64;
constexpr int kStep = 16;

using cuda::LoadElement;
__device__ __forceinline__ float LoadElement(const __nv_fp8_e4m3* p) {
  return static_cast<float>(*p);
}

template <typename A, typename W, typename Out>
__global__ void __launch_bounds__(256) AnyGemmKernel(const __grid_constant__ AnyGemmLaunch p) {
  __shared__ float a_tile[kStep][kTile + 1];
  __shared__ float w_tile[kStep][kTile + 1];
  const int64_t batch = blockIdx.z;
  int64_t begin = 0;
  int64_t end = p.rows;
  if (p.offsets != nullptr) {
    begin = p.offsets[batch];
    end = p.offsets[batch + 1];
  }
  const int64_t row0 = begin + int64_t{blockIdx.y} * kTile;
  if (row0 >= end) return;
  const int64_t col0 = int64_t{blockIdx.x} * kTile;
  const A* a = static_cast<const A*>(p.a.data) + batch * p.a_batch;
  const W* w = static_cast<const W*>(p.w) + batch * p.w_batch;
  Out* out = static_cast<Out*>(p.out.data) + batch * p.out_batch;
  const int64_t scale_cols = (p.k + 127) / 128;
  const int x = threadIdx.x % 16;
  const int y = threadIdx.x / 16;
  float sum[4][4] = {};
  for (int64_t k0 = 0; k0 < p.k; k0 += kStep) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t k = k0 + x;
      const int64_t row = row0 + y + 16 * i;
      const int64_t col = col0 + y + 16 * i;
      a_tile[x][y + 16 * i] = row < end && k < p.k ? LoadElement(a + row * p.a.stride + k) : 0.0f;
      const int64_t at = p.w_transposed ? k * p.n + col : col * p.k + k;
      float value = col < p.n && k < p.k ? LoadElement(w + at) : 0.0f;
      if (p.scales != nullptr && col < p.n && k < p.k) {
        value *= p.scales[batch * p.scale_batch + col / 128 * scale_cols + k / 128];
        // As it is loaded where a rank's part of the weight ends inside a block of scales
        // (NaturalFormat): a matrix's bits do not depend on how it is cut.
        if constexpr (std::is_same_v<A, __nv_bfloat16>) {
          value = __bfloat162float(__float2bfloat16(value));
        }
      }
      w_tile[x][y + 16 * i] = value;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      float rows[4];
      float cols[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        rows[i] = a_tile[k][y + 16 * i];
        cols[i] = w_tile[k][x + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[i], cols[j], sum[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = row0 + y + 16 * i;
    if (row >= end) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t col = col0 + x + 16 * j;
      if (col >= p.n) continue;
      Out* to = out + row * p.out.stride + col;
      float value = sum[i][j];
      if (p.bias != nullptr) value += p.bias[col];
      if (p.accumulate) value += LoadElement(to);
      StoreElement(to, value);
    }
  }
}

template <bool kFour, typename In, typename Out>
__global__ void GatedKernel(const __grid_constant__ GatedLaunch p) {
  AwaitEarlier();
  const int64_t row = blockIdx.x;
  if (p.num_rows != nullptr && row >= *p.num_rows) return;
  const In* in = static_cast<const In*>(p.in.data) + row * p.in.stride;
  Out* out = static_cast<Out*>(p.out.data) + row * p.out.stride;
  constexpr int kWidth = kFour ? 4 : 1;
  const int64_t first = (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kWidth;
  for (int64_t c = first; c < p.n; c += int64_t{gridDim.y} * blockDim.x * kWidth) {
    if constexpr (kFour) {
      const float4 g = LoadFour(in + c);
      const float4 u = LoadFour(in + p.n + c);
      StoreFour(out + c, make_float4(GateUp(g.x, u.x), GateUp(g.y, u.y), GateUp(g.z, u.z),
                                     GateUp(g.w, u.w)));
    } else {
      StoreElement(out + c, GateUp(LoadElement(in + c), LoadElement(in + p.n + c)));
    }
  }
}

}  // namespace

int LaunchAnyGemm(const AnyGemmLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.n == 0 || args.batch == 0) return cudaSuccess;
  const auto tiles = [](int64_t size) { return static_cast<unsigned>((size + kTile - 1) / kTile); };
  const dim3 grid(tiles(args.n), tiles(args.rows), static_cast<unsigned>(args.batch));
  const auto launch = [&](auto* w_type) {
    using W = std::remove_pointer_t<decltype(w_type)>;
    return WithElements(args.a.dtype, args.out.dtype, [&](auto* a_type, auto* out_type) {
      AnyGemmKernel<std::remove_pointer_t<decltype(a_type)>, W,
                    std::remove_pointer_t<decltype(out_type)>><<<grid, 256, 0, stream>>>(args);
    });
  };
  const bool known =
      args.w_dtype == DType::kF8E4M3 ? launch(static_cast<__nv_fp8_e4m3*>(nullptr))
      : args.w_dtype == DType::kF32
          ? launch(static_cast<float*>(nullptr))
          : args.w_dtype == DType::kBF16 && launch(static_cast<__nv_bfloat16*>(nullptr));
  return known ? cudaGetLastError() : cudaErrorInvalidValue;
}

int LaunchGated(const GatedLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.n == 0) return cudaSuccess;
  const bool four = FitsFour(args.in, args.n) && FitsFour(args.out, args.n);
  const int64_t items = four ? args.n / 4 : args.n;
  const int threads = items >= 256 ? 256 : static_cast<int>((items + 31) / 32 * 32);
  const dim3 grid(static_cast<unsigned>(args.rows),
                  static_cast<unsigned>((items + 2 * threads - 1) / (2 * threads)));
  cudaError_t error = cudaSuccess;
  const bool known =
      WithElements(args.in.dtype, args.out.dtype, [&](auto* in_type, auto* out_type) {
        using In = std::remove_pointer_t<decltype(in_type)>;
        using Out = std::remove_pointer_t<decltype(out_type)>;
        auto* kernel = four ? GatedKernel<true, In, Out> : GatedKernel<false, In, Out>;
        error = LaunchEarly(kernel, grid, threads, 0, stream, args);
      });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
