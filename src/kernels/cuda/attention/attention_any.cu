// Attention of any shape: a warp a (query, head), position after position. For tests of whole
// models and widths that no tuned kernel takes.
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {
namespace {

// Element d of a head in a cached row. An fp8 row is latent attention's: one head, whose first
// columns, the latents, are the value.
template <typename Cache>
__device__ float CachedElement(const GqaShape& /*s*/, const Cache* head, int d) {
  return LoadElement(head + d);
}
__device__ float CachedElement(const GqaShape& s, const __nv_fp8_e4m3* row, int d) {
  const LatentRow layout = {s.v_head_dim, s.head_dim - s.v_head_dim};
  const auto* bytes = reinterpret_cast<const uint8_t*>(row);
  if (d >= s.v_head_dim) {
    return LoadElement(reinterpret_cast<const __nv_bfloat16*>(bytes + layout.rope_at()) + d -
                       s.v_head_dim);
  }
  const auto* scales = reinterpret_cast<const float*>(bytes + layout.scales_at());
  return static_cast<float>(row[d]) * scales[d / LatentRow::kBlock];
}

// kCount x 32 columns at most.
template <int kCount, typename T, typename Cache>
__global__ void __launch_bounds__(128)
    AnyKernel(const __grid_constant__ GqaShape s, const AttentionItem* items, int64_t num_items) {
  const int64_t index = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32;
  if (index >= num_items * s.num_heads) return;
  const AttentionItem item = items[index / s.num_heads];
  const int head = static_cast<int>(index % s.num_heads);
  const int kv_head = head / (s.num_heads / s.num_kv_heads);
  const int lane = threadIdx.x % 32;
  const int64_t q_stride = s.q_stride > 0 ? s.q_stride : int64_t{s.num_heads} * s.head_dim;
  const T* query = static_cast<const T*>(s.q) + item.row * q_stride + int64_t{head} * s.head_dim;
  float q[kCount];
  float sum[kCount] = {};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int d = lane + 32 * i;
    q[i] = d < s.head_dim ? LoadElement(query + d) : 0.0f;
  }
  int64_t first = 0;
  const int64_t last = item.context - 1;
  if (s.window > 0) first = last - s.window + 1;
  if (s.chunk > 0) first = first > last / s.chunk * s.chunk ? first : last / s.chunk * s.chunk;
  float top = -INFINITY;
  float total = 0;
  for (int64_t p = first > 0 ? first : 0; p <= last; ++p) {
    const int64_t id = s.block_table[item.seq * s.max_blocks + p / s.block_size];
    const int64_t row = id * s.block_size + p % s.block_size;
    const Cache* key =
        static_cast<const Cache*>(s.k_cache) + row * s.k_stride + int64_t{kv_head} * s.head_dim;
    float dot = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int d = lane + 32 * i;
      if (d < s.head_dim) dot = fmaf(q[i], CachedElement(s, key, d), dot);
    }
    const float score = WarpSum(dot) * s.scale;
    const float next = fmaxf(top, score);
    const float factor = expf(top - next);
    const float weight = expf(score - next);
    top = next;
    total = total * factor + weight;
    const Cache* value =
        static_cast<const Cache*>(s.v_cache) + row * s.v_stride + int64_t{kv_head} * s.v_head_dim;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int d = lane + 32 * i;
      if (d < s.v_head_dim) sum[i] = sum[i] * factor + weight * CachedElement(s, value, d);
    }
  }
  T* out = static_cast<T*>(s.out) + (int64_t{item.row} * s.num_heads + head) * s.v_head_dim;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int d = lane + 32 * i;
    if (d < s.v_head_dim) StoreElement(out + d, total > 0 ? sum[i] / total : 0.0f);
  }
}

}  // namespace

int LaunchAttentionAny(const AttentionAnyArgs& args, CUstream_st* stream) {
  if (args.num_items == 0) return cudaSuccess;
  const GqaShape& s = args.shape;
  const int widest = s.head_dim > s.v_head_dim ? s.head_dim : s.v_head_dim;
  if (widest > 1024 || s.num_kv_heads < 1 || s.num_heads % s.num_kv_heads != 0) {
    return cudaErrorInvalidValue;
  }
  const auto launch = [&](auto* type, auto* cache) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Cache = std::remove_pointer_t<decltype(cache)>;
    auto* kernel = widest <= 128   ? AnyKernel<4, T, Cache>
                   : widest <= 256 ? AnyKernel<8, T, Cache>
                                   : AnyKernel<32, T, Cache>;
    const int64_t warps = args.num_items * s.num_heads;
    kernel<<<static_cast<unsigned>((warps + 3) / 4), 128, 0, stream>>>(s, args.items,
                                                                       args.num_items);
  };
  const bool known = args.cache_dtype != DType::kF8E4M3
                         ? WithElements(args.dtype, args.cache_dtype, launch)
                         : WithElement(args.dtype, [&](auto* type) {
                             launch(type, static_cast<__nv_fp8_e4m3*>(nullptr));
                           });
  return known ? cudaGetLastError() : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
