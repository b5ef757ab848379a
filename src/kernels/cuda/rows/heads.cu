// Norm, rotation and cache write of projected queries, keys and values: five launches in one, which
// is what they cost at small batches. A head lies in the registers of up to a warp's lanes; of many
// rows they take two heads, whose angles and weights are read once. Heads that this does not fit
// take a warp each and are read twice.
#include <cuda_runtime.h>

#include <bit>
#include <type_traits>

#include "base/math.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/cuda/rows/held_head.cuh"
#include "kernels/cuda/rows/rotation.cuh"
#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kThreads = 256;    // of a block, at most
constexpr int kHeadsOfMany = 2;  // that lanes take where a launch has kManyHeads
template <typename T>
constexpr int kSpanOf = 16 / sizeof(T);

enum class Kind { kQuery, kKey, kValue };

template <typename T, typename Cache>
struct Heads {
  T* x;
  int64_t stride;
  int num_heads;
  int num_kv_heads;
  const float* q_weight;
  const float* k_weight;
  float eps;
  float per_element;  // 1 / head_dim
  const int64_t* cache_rows;
  Cache* k_cache;
  int64_t k_stride;
  Cache* v_cache;
  int64_t v_stride;

  __device__ Cache* CacheRow(Kind kind, int64_t row) const {
    return kind == Kind::kKey ? k_cache + row * k_stride : v_cache + row * v_stride;
  }
};

// Over the lanes of a head; the whole warp calls.
__device__ float SumOfLanes(float x) {
  for (int step = blockDim.x / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Heads [first, first + count) of a kind, which a group of lanes takes; `column` is the first's
// place in a row of all heads. count may be larger than what is taken, or negative: none.
struct Round {
  Kind kind;
  int first;
  int count;
  int column;
};

// This group's, of kEach heads. A block has groups (threadIdx.y) of blockDim.x lanes, of a row.
template <int kEach, typename T, typename Cache>
__device__ Round OwnRound(const Heads<T, Cache>& heads) {
  const int q_rounds = (heads.num_heads + kEach - 1) / kEach;
  const int kv_rounds = (heads.num_kv_heads + kEach - 1) / kEach;
  int round = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  if (round < q_rounds) {
    return {Kind::kQuery, round * kEach, heads.num_heads - round * kEach, round * kEach};
  }
  round -= q_rounds;
  const bool is_key = round < kv_rounds;
  const int first = (is_key ? round : round - kv_rounds) * kEach;
  return {is_key ? Kind::kKey : Kind::kValue, first, heads.num_kv_heads - first,
          heads.num_heads + (is_key ? 0 : heads.num_kv_heads) + first};
}

// Loads that need nothing of each other are asked for before any is used. Values, the fewest, are
// turned like the others and stored as they came: no branch stands between the loads.
template <int kEach, typename T, typename Cache>
__global__ void __launch_bounds__(kThreads)
    PrepareHeadsKernel(Heads<T, Cache> heads, Rotation rotation) {
  constexpr int kSpan = kSpanOf<T>;
  const int half = rotation.half;
  const bool is_idle = threadIdx.x * kSpan >= half;
  const int at = is_idle ? 0 : threadIdx.x * kSpan;
  const Round round = OwnRound<kEach>(heads);
  const int64_t row = blockIdx.x;
  // No launch writes weights, and not the one before this what says where rows are: all that is
  // here before the row is. (__ldcg: not what the L1 cache has from before.)
  const int32_t position = __ldcg(rotation.positions + row);
  const int64_t cache_row = __ldcg(heads.cache_rows + row);
  const bool is_normed = heads.q_weight != nullptr;
  Runs<float, kSpan> weights = {};
  if (is_normed) {
    weights.Load((round.kind == Kind::kQuery ? heads.q_weight : heads.k_weight) + at, half);
  }
  AwaitEarlier();
  if (round.count <= 0) return;
  T* from = heads.x + row * heads.stride + round.column * 2 * half + at;
  Runs<T, kSpan> raw[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) raw[j].Load(from + min(j, round.count - 1) * 2 * half, half);
  const float* angles =
      rotation.table + int64_t{position} * (2 * half) + (rotation.interleaved ? at / 2 : at);
  const int distance = rotation.interleaved ? half / 2 : kSpan / 2;
  Runs<float, kSpan / 2> cosines, sines;
  cosines.Load(angles, distance);
  sines.Load(angles + half, distance);
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    HeldHead<kSpan> head(raw[j]);
    if (is_normed) {
      const float squares = SumOfLanes(is_idle ? 0.0f : head.Squares());
      head.Scale(rsqrtf(fmaf(squares, heads.per_element, heads.eps)), weights);
    }
    if (rotation.interleaved) {
      head.template Rotate<true>(cosines, sines);
    } else {
      head.template Rotate<false>(cosines, sines);
    }
    if (is_idle || j >= round.count) continue;
    if (round.kind == Kind::kQuery) {
      head.Store(from + j * 2 * half, half);
    } else if (cache_row >= 0) {
      Cache* to = heads.CacheRow(round.kind, cache_row) + (round.first + j) * 2 * half + at;
      if (round.kind == Kind::kValue) head = HeldHead<kSpan>(raw[j]);
      head.Store(to, half);
    }
  }
}

// Heads of any width and place, one of a warp. A lane writes the pairs that it reads.
template <typename T, typename Cache>
__global__ void __launch_bounds__(kThreads)
    PrepareAnyHeadsKernel(Heads<T, Cache> heads, Rotation rotation) {
  AwaitEarlier();
  const Round round = OwnRound<1>(heads);
  if (round.count <= 0) return;
  const int64_t row = blockIdx.x;
  const int half = rotation.half;
  T* from = heads.x + row * heads.stride + round.column * 2 * half;
  const float* weight = round.kind == Kind::kQuery ? heads.q_weight
                        : round.kind == Kind::kKey ? heads.k_weight
                                                   : nullptr;
  float squares = 0;
  for (int i = threadIdx.x; weight != nullptr && i < 2 * half; i += 32) {
    const float x = LoadElement(from + i);
    squares += x * x;
  }
  const float factor = rsqrtf(fmaf(WarpSum(squares), heads.per_element, heads.eps));
  const auto write = [&](auto* to) {
    for (int i = threadIdx.x; i < half; i += 32) {
      const int2 at = rotation.From(i);
      float2 pair = make_float2(LoadElement(from + at.x), LoadElement(from + at.y));
      if (weight != nullptr) {
        pair.x *= factor * weight[at.x];
        pair.y *= factor * weight[at.y];
      }
      if (round.kind != Kind::kValue) pair = rotation.Rotate(row, i, pair.x, pair.y);
      StoreElement(to + at.x, pair.x);
      StoreElement(to + at.y, pair.y);
    }
  };
  if (round.kind == Kind::kQuery) return write(from);
  const int64_t cache_row = heads.cache_rows[row];
  if (cache_row >= 0) write(heads.CacheRow(round.kind, cache_row) + round.first * 2 * half);
}

// Lanes of a head of PrepareHeadsKernel, a power of two; 0: it does not fit.
template <typename T>
int LanesOf(const PrepareHeadsLaunch& args) {
  constexpr int64_t kSpan = kSpanOf<T>;
  const auto bits = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  const uintptr_t addresses = bits(args.x.data) | bits(args.k_cache.data) |
                              bits(args.v_cache.data) | bits(args.q_weight) | bits(args.k_weight) |
                              bits(args.table);
  const int64_t strides = args.x.stride | args.k_cache.stride | args.v_cache.stride;
  const int64_t half = args.head_dim / 2;
  if (addresses % 16 != 0 || strides % kSpan != 0 || half % kSpan != 0) return 0;
  return half <= 32 * kSpan ? static_cast<int>(std::bit_ceil(uint64_t(half / kSpan))) : 0;
}

template <typename T, typename Cache>
cudaError_t LaunchHeads(const PrepareHeadsLaunch& args, cudaStream_t stream) {
  const Heads<T, Cache> heads = {static_cast<T*>(args.x.data),
                                 args.x.stride,
                                 static_cast<int>(args.num_heads),
                                 static_cast<int>(args.num_kv_heads),
                                 args.q_weight,
                                 args.k_weight,
                                 args.eps,
                                 1.0f / static_cast<float>(args.head_dim),
                                 args.cache_rows,
                                 static_cast<Cache*>(args.k_cache.data),
                                 args.k_cache.stride,
                                 static_cast<Cache*>(args.v_cache.data),
                                 args.v_cache.stride};
  const Rotation rotation = {static_cast<int>(args.head_dim / 2), args.interleaved, false,
                             args.positions, args.table};
  const int fitting = LanesOf<T>(args);
  const int lanes = fitting > 0 ? fitting : 32;
  const int64_t all_heads = args.num_heads + 2 * args.num_kv_heads;
  const bool many = fitting > 0 && args.rows * all_heads >= kManyHeads;
  const int each = many ? kHeadsOfMany : 1;
  const int64_t groups = CeilDiv(args.num_heads, each) + 2 * CeilDiv(args.num_kv_heads, each);
  const int64_t warps = CeilDiv(groups * lanes, 32);
  const int64_t blocks = CeilDiv(warps, kThreads / 32);  // of a row, equal ones
  const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>(blocks));
  const dim3 threads(lanes, static_cast<unsigned>(CeilDiv(warps, blocks) * 32 / lanes));
  auto* kernel = many          ? PrepareHeadsKernel<kHeadsOfMany, T, Cache>
                 : fitting > 0 ? PrepareHeadsKernel<1, T, Cache>
                               : PrepareAnyHeadsKernel<T, Cache>;
  return LaunchEarly(kernel, grid, threads, 0, stream, heads, rotation);
}

}  // namespace

int LaunchPrepareHeads(const PrepareHeadsLaunch& args, CUstream_st* stream) {
  const int64_t items = args.rows * (args.num_heads + 2 * args.num_kv_heads);
  if (items == 0 || args.head_dim == 0) return cudaSuccess;
  if (args.head_dim % 2 != 0) return cudaErrorInvalidValue;
  if (args.k_cache.dtype != args.v_cache.dtype) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  const bool known = WithElements(args.x.dtype, args.k_cache.dtype, [&](auto* type, auto* cache) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Cache = std::remove_pointer_t<decltype(cache)>;
    error = LaunchHeads<T, Cache>(args, stream);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
