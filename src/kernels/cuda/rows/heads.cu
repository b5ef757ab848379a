// Norm, rotation and cache write of projected queries, keys and values: a warp a head, held in
// registers between them. Five launches in one, which is what they cost at small batches.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/cuda/rows/rotation.cuh"
#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

template <typename T, typename Cache>
struct Heads {
  T* x;
  int64_t stride;
  int64_t rows;
  int64_t num_heads;
  int64_t num_kv_heads;
  const float* q_weight;
  const float* k_weight;
  float eps;
  const int64_t* cache_rows;
  Cache* k_cache;
  int64_t k_stride;
  Cache* v_cache;
  int64_t v_stride;
};

// Lane l has pairs l, l + 32, ..; what lies past the head counts as zero.
template <int kPairs>
struct HeldHead {
  float2 pairs[kPairs];

  template <typename T>
  __device__ void Load(const T* head, const Rotation& rotation) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = threadIdx.x % 32 + 32 * k;
      pairs[k] = make_float2(0, 0);
      if (i >= rotation.half) continue;
      const int2 from = rotation.From(i);
      pairs[k] = make_float2(LoadElement(head + from.x), LoadElement(head + from.y));
    }
  }

  __device__ void Normalise(const float* weight, float eps, const Rotation& rotation) {
    float squares = 0;
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      squares += pairs[k].x * pairs[k].x + pairs[k].y * pairs[k].y;
    }
    const float factor = rsqrtf(WarpSum(squares) / static_cast<float>(2 * rotation.half) + eps);
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = threadIdx.x % 32 + 32 * k;
      if (i >= rotation.half) continue;
      const int2 from = rotation.From(i);
      pairs[k].x *= factor * weight[from.x];
      pairs[k].y *= factor * weight[from.y];
    }
  }

  __device__ void Rotate(int64_t row, const Rotation& rotation) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = threadIdx.x % 32 + 32 * k;
      if (i < rotation.half) pairs[k] = rotation.Rotate(row, i, pairs[k].x, pairs[k].y);
    }
  }

  template <typename T>
  __device__ void Store(T* head, const Rotation& rotation) const {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = threadIdx.x % 32 + 32 * k;
      if (i >= rotation.half) continue;
      const int2 to = rotation.From(i);  // in place: pairs stay where they were
      StoreElement(head + to.x, pairs[k].x);
      StoreElement(head + to.y, pairs[k].y);
    }
  }
};

template <int kPairs, typename T, typename Cache>
__global__ void PrepareHeadsKernel(Heads<T, Cache> heads, Rotation rotation) {
  AwaitEarlier();
  const int64_t all_heads = heads.num_heads + 2 * heads.num_kv_heads;
  const int64_t item = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32;
  if (item >= heads.rows * all_heads) return;
  const int64_t row = item / all_heads;
  const int64_t head = item % all_heads;
  const int64_t head_dim = 2 * rotation.half;
  T* from = heads.x + row * heads.stride + head * head_dim;
  const int64_t kv_head = head - heads.num_heads;
  const bool is_query = kv_head < 0;
  const int64_t cache_row = is_query ? 0 : heads.cache_rows[row];
  if (cache_row < 0) return;
  HeldHead<kPairs> held;
  held.Load(from, rotation);
  if (kv_head >= heads.num_kv_heads) {
    held.Store(
        heads.v_cache + cache_row * heads.v_stride + (kv_head - heads.num_kv_heads) * head_dim,
        rotation);
    return;
  }
  if (heads.q_weight != nullptr) {
    held.Normalise(is_query ? heads.q_weight : heads.k_weight, heads.eps, rotation);
  }
  held.Rotate(row, rotation);
  if (is_query) {
    held.Store(from, rotation);
  } else {
    held.Store(heads.k_cache + cache_row * heads.k_stride + kv_head * head_dim, rotation);
  }
}

}  // namespace

int LaunchPrepareHeads(const PrepareHeadsLaunch& args, CUstream_st* stream) {
  const int64_t items = args.rows * (args.num_heads + 2 * args.num_kv_heads);
  if (items == 0 || args.head_dim == 0) return cudaSuccess;
  if (args.head_dim % 2 != 0 || args.head_dim > 64 * kMaxPairs) return cudaErrorInvalidValue;
  if (args.k_cache.dtype != args.v_cache.dtype) return cudaErrorInvalidValue;
  const Rotation rotation = {static_cast<int>(args.head_dim / 2), args.interleaved, false,
                             args.positions, args.table};
  cudaError_t error = cudaSuccess;
  const bool known = WithElements(args.x.dtype, args.k_cache.dtype, [&](auto* type, auto* cache) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Cache = std::remove_pointer_t<decltype(cache)>;
    const Heads<T, Cache> heads = {static_cast<T*>(args.x.data),
                                   args.x.stride,
                                   args.rows,
                                   args.num_heads,
                                   args.num_kv_heads,
                                   args.q_weight,
                                   args.k_weight,
                                   args.eps,
                                   args.cache_rows,
                                   static_cast<Cache*>(args.k_cache.data),
                                   args.k_cache.stride,
                                   static_cast<Cache*>(args.v_cache.data),
                                   args.v_cache.stride};
    auto* kernel = args.head_dim <= 64    ? PrepareHeadsKernel<1, T, Cache>
                   : args.head_dim <= 128 ? PrepareHeadsKernel<2, T, Cache>
                                          : PrepareHeadsKernel<kMaxPairs, T, Cache>;
    error = LaunchEarly(kernel, static_cast<unsigned>((items + 7) / 8), 256, 0, stream, heads,
                        rotation);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
