// MLA's fused cache write: a block a row. Low-rank queries, which nothing of it reads, are normed
// by blocks beside.
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/cuda/rows/rotation.cuh"
#include "kernels/cuda/rows/row_norm.cuh"
#include "kernels/cuda/rows/rows.h"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kSumming = 128;          // threads of a row of latents that add up squares
constexpr int kMaxThreads = 512;       // of a block
constexpr int kQueryFours = 2;         // of a thread
constexpr int64_t kMaxQueries = 4096;  // columns that are normed beside
constexpr int64_t kMostBeside = 512;   // rows; of more, each is quicker by itself

// Latents and their scales to an fp8 row; a warp a block of latents. value(c): latent c.
template <typename Value>
__device__ void StoreLatents(const LatentRow& layout, uint8_t* row, const Value& value) {
  constexpr int kEach = LatentRow::kBlock / 32;
  for (int block = threadIdx.x / 32; block < layout.num_blocks(); block += blockDim.x / 32) {
    const int begin = block * static_cast<int>(LatentRow::kBlock) + threadIdx.x % 32;
    float x[kEach];
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int c = begin + 32 * i;
      x[i] = c < layout.latent_dim ? value(c) : 0.0f;
      largest = fmaxf(largest, fabsf(x[i]));
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    }
    const float scale = E4m3Scale(largest);
    const float inverse = 1.0f / scale;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int c = begin + 32 * i;
      if (c < layout.latent_dim) {
        row[c] = __nv_cvt_float_to_fp8(x[i] * inverse, __NV_SATFINITE, __NV_E4M3);
      }
    }
    if (threadIdx.x % 32 == 0) {
      reinterpret_cast<float*>(row + layout.scales_at())[block] = scale;
    }
  }
}

template <typename T>
struct QueryRows {
  T* x = nullptr;
  int64_t stride = 0;
  int cols = 0;
  int threads = 0;
  RowNorm norm = {};
};

// Blocks (row, 0) have latents: read once into shared memory, normed, written; the rope part by the
// first threads. Out: uint8_t where the cache is fp8. Blocks (row, 1) have queries.
template <typename In, typename Out>
__global__ void __launch_bounds__(kMaxThreads)
    LatentsKernel(const QueryRows<In> queries, const In* x, int64_t x_stride, int latent,
                  const float* weight, float eps, Rotation rotation, const int64_t* cache_rows,
                  Out* cache, int64_t cache_stride) {
  const int64_t row = blockIdx.x;
  const int tid = threadIdx.x;
  if (blockIdx.y == 1) {
    const RowsAsTheyAre<In> rows = {queries.x, queries.stride};
    NormRow<kQueryFours>(rows, queries.norm, row, queries.x + row * queries.stride,
                         tid < queries.threads ? tid * 4 : queries.cols, queries.threads * 4,
                         queries.cols);
    return;
  }
  extern __shared__ float held[];
  float* weights = held + latent;
  // Not the launch before this says where rows are: all but the row is here before that is.
  // (__ldcg: not what the L1 cache has from before.)
  const int64_t to_row = __ldcg(cache_rows + row);
  const int32_t position = __ldcg(rotation.positions + row);
  for (int c = tid; c < latent; c += blockDim.x) weights[c] = weight[c];
  const bool rotates = tid < rotation.half && to_row >= 0;
  const float2 angle = rotates ? rotation.AngleAt(position, tid) : make_float2(0, 0);
  AwaitEarlier();
  if (to_row < 0) return;
  const In* from = x + row * x_stride;
  const int2 source = rotation.From(rotates ? tid : 0);
  const float2 pair =
      make_float2(LoadElement(from + latent + source.x), LoadElement(from + latent + source.y));
  float squares = 0;
#pragma unroll 4
  for (int c = tid < kSumming ? tid : latent; c < latent; c += kSumming) {
    held[c] = LoadElement(from + c);
    squares += held[c] * held[c];
  }
  constexpr bool kIsFp8 = std::is_same_v<Out, uint8_t>;
  const LatentRow layout = {latent, 2 * rotation.half};
  Out* to = cache + to_row * cache_stride;
  if (rotates) {
    const int2 target = rotation.To(tid);
    const float2 rotated = Rotated(angle, pair);
    using Rope = std::conditional_t<kIsFp8, __nv_bfloat16, Out>;
    Rope* ropes = reinterpret_cast<Rope*>(to + (kIsFp8 ? layout.rope_at() : latent));
    StoreElement(ropes + target.x, rotated.x);
    StoreElement(ropes + target.y, rotated.y);
  }
  const float factor = rsqrtf(BlockSum(squares) / static_cast<float>(latent) + eps);
  const auto normed = [&](int c) { return held[c] * factor * weights[c]; };
  if constexpr (kIsFp8) {
    StoreLatents(layout, to, normed);
  } else {
    for (int c = tid; c < latent; c += blockDim.x) StoreElement(to + c, normed(c));
  }
}

RmsNormLaunch NormOf(const MlaKvWriteLaunch& args) {
  RmsNormLaunch norm;
  norm.x = args.queries;
  norm.weight = args.query_weight;
  norm.eps = args.query_eps;
  norm.out = args.queries;
  norm.rows = args.rows;
  norm.cols = args.query_cols;
  return norm;
}

// Whether blocks beside those of latents can norm them, to the bits of LaunchRmsNorm.
bool QueriesFit(const MlaKvWriteLaunch& args) {
  return args.rows <= kMostBeside && args.query_cols <= kMaxQueries &&
         args.queries.dtype == args.x.dtype && FitsFour(args.queries, args.query_cols) &&
         FitsFour(args.query_weight, 0, args.query_cols, sizeof(float));
}

template <typename In, typename Out>
cudaError_t LaunchLatents(const MlaKvWriteLaunch& args, bool has_queries, cudaStream_t stream) {
  const Rotation rotation = {static_cast<int>(args.rope / 2), args.interleaved, args.deinterleave,
                             args.positions, args.table};
  QueryRows<In> queries;
  if (has_queries) {
    queries.x = static_cast<In*>(args.queries.data);
    queries.stride = args.queries.stride;
    queries.cols = static_cast<int>(args.query_cols);
    queries.threads = NormThreads(args.query_cols);
    queries.norm.weight = args.query_weight;
    queries.norm.eps = args.query_eps;
  }
  return LaunchEarly(LatentsKernel<In, Out>,
                     dim3(static_cast<unsigned>(args.rows), has_queries ? 2 : 1),
                     std::max(kSumming, queries.threads), 2 * args.latent * sizeof(float), stream,
                     queries, static_cast<const In*>(args.x.data), args.x.stride,
                     static_cast<int>(args.latent), args.weight, args.eps, rotation,
                     args.cache_rows, static_cast<Out*>(args.cache.data), args.cache.stride);
}

}  // namespace

int LaunchMlaKvWrite(const MlaKvWriteLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.rope % 2 != 0 || args.rope > 256 || args.latent > 6000) return cudaErrorInvalidValue;
  const bool beside = args.queries.data != nullptr && QueriesFit(args);
  int error = cudaSuccess;
  const auto launch = [&](auto* in_type, auto* type) {
    using In = std::remove_pointer_t<decltype(in_type)>;
    using Out = std::remove_pointer_t<decltype(type)>;
    error = LaunchLatents<In, Out>(args, beside, stream);
  };
  const bool known = args.cache.dtype != DType::kF8E4M3
                         ? WithElements(args.x.dtype, args.cache.dtype, launch)
                         : WithElement(args.x.dtype, [&](auto* type) {
                             launch(type, static_cast<uint8_t*>(nullptr));
                           });
  if (!known) return cudaErrorInvalidValue;
  if (error != cudaSuccess || args.queries.data == nullptr || beside) return error;
  return LaunchRmsNorm(NormOf(args), stream);
}

}  // namespace moebius::kernels::cuda
