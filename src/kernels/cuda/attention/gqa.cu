// Four warps a block. Rows are (query, head of the group) pairs: up to 64, 16 a warp, all warps on
// one tile of 64 positions; or, for decode, up to 16 rows that all four warps share, each with 16
// positions of the tile, summed at the end. Tiles of K and V come by asynchronous copies, two ahead
// of their use in turn.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/attention/combine.h"
#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/visible.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::ptx::MultiplyAdd;

constexpr int kTile = 64;
constexpr int kThreads = 128;

struct Params {
  GqaShape shape;
  int group;  // heads a kv head
  int max_queries;
  const AttentionSegment* segments;
  const int32_t* worker_begin;
  float* partial;
  float* partial_lse;
  float scale_log2;
};

template <bool kTransposed>
__device__ __forceinline__ void LoadMatrices(uint32_t (&m)[4], uint32_t shared) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared));
  }
}
// 16 bytes to shared memory; zeros where not `valid`.
__device__ __forceinline__ void CopyAsync(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

template <int kDim, int kRowWarps>
struct Block {
  static constexpr int kPositions = kTile / (4 / kRowWarps);  // a warp
  static constexpr int kTileBytes = kTile * kDim * 2;

  const Params& p;
  uint32_t shared;  // [2][K, V][64][kDim], 16-byte units of a row swizzled by the row
  int kv_head;
  int first_row;       // of this warp, among the item's (query, head) rows
  int first_position;  // of this warp, in a tile
  int lane = threadIdx.x % 32;
  uint32_t q[kDim / 16][4];
  float o[kDim / 8][4];
  float max[2];
  float sum[2];
  int end[2];  // rows lane / 4, + 8: visible positions [begin, end)
  int begin[2];

  static __device__ uint32_t At(uint32_t base, int row, int unit) {
    return base + row * kDim * 2 + ((unit ^ (row & 7)) << 4);
  }
  __device__ bool HasRow(const AttentionSegment& s, int r) const {
    return first_row + lane / 4 + 8 * r < s.queries * p.group;
  }
  __device__ int QueryOf(int r) const { return (first_row + lane / 4 + 8 * r) / p.group; }
  __device__ int HeadOf(int r) const {
    return kv_head * p.group + (first_row + lane / 4 + 8 * r) % p.group;
  }
  __device__ int FirstVisible(int context) const {
    return cuda::FirstVisible(p.shape.window, p.shape.chunk, context);
  }

  __device__ void StartSegment(const AttentionSegment& s) {
    const auto* all = static_cast<const __nv_bfloat16*>(p.shape.q);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      max[r] = -INFINITY;
      sum[r] = 0;
      const bool there = HasRow(s, r);
      end[r] = there ? s.context - s.queries + 1 + QueryOf(r) : 0;
      begin[r] = there ? FirstVisible(end[r]) : 0;
      const int64_t row = s.row + QueryOf(r);
      const auto* from =
          reinterpret_cast<const uint32_t*>(all + row * p.shape.q_stride + HeadOf(r) * kDim);
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k) {
        q[k][r] = there ? from[8 * k + lane % 4] : 0;
        q[k][2 + r] = there ? from[8 * k + 4 + lane % 4] : 0;
      }
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0;
  }

  __device__ void LoadTile(const AttentionSegment& s, int tile, int stage) {
    const int32_t* table = p.shape.block_table + s.seq * p.shape.max_blocks;
    const auto* k = static_cast<const __nv_bfloat16*>(p.shape.k_cache) + kv_head * kDim;
    const auto* v = static_cast<const __nv_bfloat16*>(p.shape.v_cache) + kv_head * kDim;
    const uint32_t base = shared + stage * 2 * kTileBytes;
    constexpr int kUnits = kDim / 8;
    for (int i = threadIdx.x; i < kTile * kUnits; i += kThreads) {
      const int row = i / kUnits;
      const int unit = i % kUnits;
      const int position = tile * kTile + row;
      int32_t id = position < s.context ? table[position / p.shape.block_size] : -1;
      const bool valid = id >= 0;
      if (!valid) id = 0;
      const int64_t at = int64_t{id} * p.shape.block_size + position % p.shape.block_size;
      CopyAsync(At(base, row, unit), k + at * p.shape.k_stride + unit * 8, valid);
      CopyAsync(At(base + kTileBytes, row, unit), v + at * p.shape.v_stride + unit * 8, valid);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  // This warp's part of one tile.
  __device__ void AddTile(int tile, int stage) {
    const uint32_t keys = shared + stage * 2 * kTileBytes;
    const uint32_t values = keys + kTileBytes;
    float s[kPositions / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kPositions / 16; ++n) {
        uint32_t b[4];
        LoadMatrices<false>(
            b, At(keys, first_position + 16 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
        MultiplyAdd(s[2 * n], q[k], b[0], b[1]);
        MultiplyAdd(s[2 * n + 1], q[k], b[2], b[3]);
      }
    }
    Softmax(s, tile * kTile + first_position);
#pragma unroll
    for (int n = 0; n < kPositions / 16; ++n) {
      const uint32_t a[4] = {PackBf16(s[2 * n][0], s[2 * n][1]), PackBf16(s[2 * n][2], s[2 * n][3]),
                             PackBf16(s[2 * n + 1][0], s[2 * n + 1][1]),
                             PackBf16(s[2 * n + 1][2], s[2 * n + 1][3])};
#pragma unroll
      for (int j = 0; j < kDim / 16; ++j) {
        uint32_t b[4];
        LoadMatrices<true>(b, At(values, first_position + 16 * n + lane % 16, 2 * j + lane / 16));
        MultiplyAdd(o[2 * j], a, b[0], b[1]);
        MultiplyAdd(o[2 * j + 1], a, b[2], b[3]);
      }
    }
  }

  // Scores become weights; the running maximum, sum and output follow.
  __device__ void Softmax(float (&s)[kPositions / 8][4], int position) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
#pragma unroll
      for (int j = 0; j < kPositions / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int at = position + 8 * j + lane % 4 * 2 + c;
          float& x = s[j][2 * r + c];
          x = at >= begin[r] && at < end[r] ? x * p.scale_log2 : -INFINITY;
          top = fmaxf(top, x);
        }
      }
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float base = top == -INFINITY ? 0.0f : top;  // nothing visible yet
      const float factor = Exp2(max[r] - base);
      max[r] = top;
      sum[r] *= factor;
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        o[j][2 * r] *= factor;
        o[j][2 * r + 1] *= factor;
      }
#pragma unroll
      for (int j = 0; j < kPositions / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          s[j][2 * r + c] = Exp2(s[j][2 * r + c] - base);
          sum[r] += s[j][2 * r + c];
        }
      }
    }
  }

  // Decode: the four warps' results to warp 0's registers, in order of warps.
  __device__ void MergeWarps() {
    auto* room = reinterpret_cast<float*>(__cvta_shared_to_generic(shared));
    float* maxima = room;     // [4][16]
    float* sums = room + 64;  // [4][16]
    float* outputs = room + 128;
    const int warp = threadIdx.x / 32;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (lane % 4 == 0) {
        maxima[warp * 16 + lane / 4 + 8 * r] = max[r];
        sums[warp * 16 + lane / 4 + 8 * r] = sum[r];
      }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + 8 * r;
      float top = -INFINITY;
      for (int w = 0; w < 4; ++w) top = fmaxf(top, maxima[w * 16 + row]);
      const float base = top == -INFINITY ? 0.0f : top;
      float total = 0;
      for (int w = 0; w < 4; ++w) total += sums[w * 16 + row] * Exp2(maxima[w * 16 + row] - base);
      const float factor = Exp2(max[r] - base);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        o[j][2 * r] *= factor;
        o[j][2 * r + 1] *= factor;
      }
      max[r] = top;
      sum[r] = total;
    }
    for (int w = 1; w < 4; ++w) {
      if (warp == w) {
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) outputs[(j * 4 + i) * 32 + lane] = o[j][i];
        }
      }
      __syncthreads();
      if (warp == 0) {
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) o[j][i] += outputs[(j * 4 + i) * 32 + lane];
        }
      }
      __syncthreads();
    }
  }

  __device__ void FinishSegment(const AttentionSegment& s) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
    if constexpr (kRowWarps == 1) {
      MergeWarps();
      if (threadIdx.x >= 32) return;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!HasRow(s, r)) continue;
      const float factor = sum[r] > 0 ? 1.0f / sum[r] : 0.0f;
      if (s.slot < 0) {
        const int64_t row =
            static_cast<int64_t>(s.row + QueryOf(r)) * p.shape.num_heads + HeadOf(r);
        auto* out = reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(p.shape.out) +
                                                row * kDim + lane % 4 * 2);
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
          out[4 * j] = PackBf16(o[j][2 * r] * factor, o[j][2 * r + 1] * factor);
        }
      } else {
        const int64_t at =
            (static_cast<int64_t>(s.slot) * p.max_queries + QueryOf(r)) * p.shape.num_heads +
            HeadOf(r);
        auto* out = reinterpret_cast<float2*>(p.partial + at * kDim + lane % 4 * 2);
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
          out[4 * j] = make_float2(o[j][2 * r] * factor, o[j][2 * r + 1] * factor);
        }
        if (lane % 4 == 0) {
          p.partial_lse[at] = sum[r] > 0 ? max[r] + log2f(sum[r]) : -INFINITY;
        }
      }
    }
  }

  __device__ void Run(const AttentionSegment& s) {
    StartSegment(s);
    // The first query sees furthest back.
    const int first = FirstVisible(s.context - s.queries + 1) / kTile;
    const int begin_tile = s.begin_tile > first ? s.begin_tile : first;
    if (begin_tile < s.end_tile) LoadTile(s, begin_tile, 0);
    for (int tile = begin_tile; tile < s.end_tile; ++tile) {
      const int stage = (tile - begin_tile) & 1;
      if (tile + 1 < s.end_tile) {
        LoadTile(s, tile + 1, stage ^ 1);
        asm volatile("cp.async.wait_group 1;" ::: "memory");
      } else {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
      }
      __syncthreads();
      AddTile(tile, stage);
      __syncthreads();
    }
    FinishSegment(s);
    __syncthreads();
  }
};

template <int kDim, int kRowWarps>
__global__ void __launch_bounds__(kThreads) GqaKernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(128) uint8_t raw[];
  const int warp = threadIdx.x / 32;
  moebius::cuda::AwaitEarlier();
  Block<kDim, kRowWarps> block{p, SharedAddress(raw)};
  block.kv_head = static_cast<int>(blockIdx.y) % p.shape.num_kv_heads;
  block.first_row = static_cast<int>(blockIdx.y) / p.shape.num_kv_heads * 16 * kRowWarps +
                    (kRowWarps == 4 ? warp * 16 : 0);
  block.first_position = kRowWarps == 4 ? 0 : warp * 16;
  const int end = p.worker_begin[blockIdx.x + 1];
  for (int i = p.worker_begin[blockIdx.x]; i < end; ++i) block.Run(p.segments[i]);
}

template <int kDim, int kRowWarps>
cudaError_t Launch(const GqaArgs& args, const Params& p, int row_blocks, cudaStream_t stream) {
  constexpr int kBytes = 4 * Block<kDim, kRowWarps>::kTileBytes;
  auto* kernel = GqaKernel<kDim, kRowWarps>;
  // Each time: threads of one process may use several devices.
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  const dim3 grid(args.num_workers, p.shape.num_kv_heads * row_blocks);
  return moebius::cuda::LaunchEarly(kernel, grid, kThreads, kBytes, stream, p);
}

}  // namespace

int LaunchGqa(const GqaArgs& args, CUstream_st* stream) {
  if (args.num_workers == 0) return cudaSuccess;
  const GqaShape& shape = args.shape;
  if (shape.head_dim != shape.v_head_dim || shape.num_kv_heads < 1 ||
      shape.num_heads % shape.num_kv_heads != 0) {
    return cudaErrorInvalidValue;
  }
  const int group = shape.num_heads / shape.num_kv_heads;
  const int rows = args.max_queries * group;
  auto* partial = static_cast<float*>(args.workspace);
  const int64_t partial_rows = args.max_slots * args.max_queries * shape.num_heads;
  Params p = {shape,
              group,
              args.max_queries,
              args.segments,
              args.worker_begin,
              partial,
              partial + partial_rows * shape.head_dim,
              shape.scale * 1.4426950408889634f};
  if (p.shape.q_stride == 0) p.shape.q_stride = int64_t{shape.num_heads} * shape.head_dim;
  const int blocks = (rows + 63) / 64;
  cudaError_t error = cudaErrorInvalidValue;
  if (rows <= 16) {
    if (shape.head_dim == 64) error = Launch<64, 1>(args, p, 1, stream);
    if (shape.head_dim == 128) error = Launch<128, 1>(args, p, 1, stream);
    if (shape.head_dim == 256) error = Launch<256, 1>(args, p, 1, stream);
  } else {
    if (shape.head_dim == 64) error = Launch<64, 4>(args, p, blocks, stream);
    if (shape.head_dim == 128) error = Launch<128, 4>(args, p, blocks, stream);
    if (shape.head_dim == 256) error = Launch<256, 4>(args, p, blocks, stream);
  }
  if (error != cudaSuccess) return error;
  CombineArgs combine;
  combine.rows = args.combine;
  combine.num_rows = args.num_combine;
  combine.max_queries = args.max_queries;
  combine.num_heads = shape.num_heads;
  combine.width = shape.head_dim;
  combine.partial = p.partial;
  combine.partial_lse = p.partial_lse;
  combine.out = shape.out;
  return LaunchCombine(combine, stream);
}

}  // namespace moebius::kernels::cuda
