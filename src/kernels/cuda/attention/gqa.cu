// A block takes its worker's segments one after the other. What it sums of an item that was cut
// goes to the workspace; the block that is the last of its item's adds the pieces up.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention/gqa_block.cuh"
#include "kernels/cuda/attention/sum_pieces.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

template <int kDim, int kRowWarps>
__device__ void WriteOut(const GqaBlock<kDim, kRowWarps>& b, const AttentionSegment& s, int row,
                         int column, PartSum& sum) {
  auto* out = static_cast<__nv_bfloat16*>(b.p.shape.out) + b.OutRow(s, row) * kDim + column;
  *reinterpret_cast<uint2*>(out) = sum.Output();
}

// Decode: the four warps' sums of each row, in order of warps, through the memory of their tiles.
template <int kDim>
__device__ void WriteSegment(const GqaBlock<kDim, 1>& b, const AttentionSegment& s) {
  constexpr int kStride = kDim + 8;                // lanes of a warp write to different banks
  constexpr int kRoom = GqaBlock<kDim, 1>::kSlab;  // floats: a warp's tiles
  static_assert(16 * kStride <= kRoom);
  __shared__ SoftmaxShare shares[4][16];
  auto* rooms = reinterpret_cast<float*>(__cvta_shared_to_generic(b.shared));
  const int num_rows = b.p.group;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = b.RowOfLane(r);
    if (row >= num_rows) continue;
    auto* to = reinterpret_cast<float2*>(rooms + b.warp * kRoom + row * kStride + b.lane % 4 * 2);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) to[4 * j] = make_float2(b.o[j][2 * r], b.o[j][2 * r + 1]);
    if (b.lane % 4 == 0) shares[b.warp][row] = {b.max[r], b.sum[r]};
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_rows * (kDim / 4); i += b.kThreads) {
    const int row = i / (kDim / 4);
    const int column = i % (kDim / 4) * 4;
    SoftmaxShare of[4];
    float4 x[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      of[w] = shares[w][row];
      x[w] = *reinterpret_cast<const float4*>(rooms + w * kRoom + row * kStride + column);
    }
    PartSum sum;
    sum.Add(of, x);
    if (s.slot < 0) {
      WriteOut(b, s, row, column, sum);
    } else {
      const int64_t at = b.PartialRow(s.slot, row);
      *reinterpret_cast<float4*>(b.p.partial + at * kDim + column) = sum.x;
      if (column == 0) b.p.partial_shares[at] = sum.all;
    }
  }
}

// Four warps, each with rows of its own: straight from their registers.
template <int kDim>
__device__ void WriteSegment(const GqaBlock<kDim, 4>& b, const AttentionSegment& s) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = b.RowOfLane(r);
    if (row >= s.queries * b.p.group) continue;
    if (s.slot < 0) {
      const float factor = b.sum[r] > 0 ? __fdividef(1.0f, b.sum[r]) : 0.0f;
      auto* out = reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(b.p.shape.out) +
                                              b.OutRow(s, row) * kDim + b.lane % 4 * 2);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        out[4 * j] = PackBf16(b.o[j][2 * r] * factor, b.o[j][2 * r + 1] * factor);
      }
    } else {
      const int64_t at = b.PartialRow(s.slot, row);
      auto* out = reinterpret_cast<float2*>(b.p.partial + at * kDim + b.lane % 4 * 2);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        out[4 * j] = make_float2(b.o[j][2 * r], b.o[j][2 * r + 1]);
      }
      if (b.lane % 4 == 0) b.p.partial_shares[at] = {b.max[r], b.sum[r]};
    }
  }
}

// The output of an item whose pieces are all there. A thread has four columns at two places at a
// time, and so 16 loads of 16 bytes under way.
template <int kDim, int kRowWarps>
__device__ void SumPieces(const GqaBlock<kDim, kRowWarps>& b, const AttentionSegment& s) {
  constexpr int kAtOnce = 2;
  constexpr int kPieces = 8;
  const int num_rows = min(s.queries * b.p.group - b.block_row, b.kRows);
  const int num_places = num_rows * (kDim / 4);
  const uint32_t rows_a_slot = b.p.max_queries * b.p.shape.num_heads;
  const uint32_t value_step = rows_a_slot * kDim * sizeof(float);
  const uint32_t share_step = rows_a_slot * sizeof(SoftmaxShare);
  for (int first = threadIdx.x; first < num_places; first += kAtOnce * b.kThreads) {
    PartSum sums[kAtOnce];
    int row[kAtOnce];
    int column[kAtOnce];
    const uint8_t* values[kAtOnce];
    const uint8_t* shares[kAtOnce];
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const int place = min(first + a * b.kThreads, num_places - 1);
      row[a] = b.block_row + place / (kDim / 4);
      column[a] = place % (kDim / 4) * 4;
      const int64_t at = b.PartialRow(s.first_slot, row[a]);
      values[a] = reinterpret_cast<const uint8_t*>(b.p.partial + at * kDim + column[a]);
      shares[a] = reinterpret_cast<const uint8_t*>(b.p.partial_shares + at);
    }
    for (int piece = 0; piece < s.num_slots; piece += kPieces) {
      const int count = s.num_slots - piece;
      SoftmaxShare of[kAtOnce][kPieces];
      float4 x[kAtOnce][kPieces];
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
#pragma unroll
        for (int a = 0; a < kAtOnce; ++a) {
          x[a][i] = {0, 0, 0, 0};
          if (i >= count) continue;
          const auto* share = shares[a] + uint64_t{share_step} * i;
          const auto* value = values[a] + uint64_t{value_step} * i;
          const float2 of_piece = __ldcg(reinterpret_cast<const float2*>(share));
          of[a][i] = {of_piece.x, of_piece.y};
          x[a][i] = __ldcg(reinterpret_cast<const float4*>(value));
        }
      }
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        sums[a].Add(of[a], x[a]);
        shares[a] += uint64_t{share_step} * kPieces;
        values[a] += uint64_t{value_step} * kPieces;
      }
    }
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (first + a * b.kThreads < num_places) WriteOut(b, s, row[a], column[a], sums[a]);
    }
  }
}

// A segment as it was staged: not what the first-level cache has from before.
__device__ AttentionSegment ReadSegment(const AttentionSegment* from) {
  AttentionSegment s;
  auto* words = reinterpret_cast<int32_t*>(&s);
#pragma unroll
  for (size_t i = 0; i < sizeof(s) / sizeof(int32_t); ++i) {
    words[i] = __ldcg(reinterpret_cast<const int32_t*>(from) + i);
  }
  return s;
}

template <int kDim, int kRowWarps>
__global__ void __launch_bounds__(128, GqaBlocksPerSm(kDim, kRowWarps == 1))
    GqaKernel(const __grid_constant__ GqaParams p) {
  extern __shared__ __align__(128) uint8_t raw[];
  using Block = GqaBlock<kDim, kRowWarps>;
  Block block{p, static_cast<int>(blockIdx.y) % p.shape.num_kv_heads,
              static_cast<int>(blockIdx.y) / p.shape.num_kv_heads * Block::kRows,
              SharedAddress(raw)};
  // Read before the wait, as launch.cuh allows, is what is older than the launch before: the step's
  // inputs, which were copied before its first layer, and in decode what earlier steps wrote to the
  // caches. A sequence has one query then, so this step's launches write its newest position alone,
  // and EndCopies comes for that one after the wait.
  const auto worker = static_cast<int>(blockIdx.x);
  const int begin = __ldcg(p.worker_begin + worker);
  const int end = __ldcg(p.worker_begin + worker + 1);
  // Where items are few this is the worker's first segment: not to wait for `begin` to know it.
  AttentionSegment s;
  if (worker < p.num_segments) s = ReadSegment(p.segments + worker);
  if (begin < end && begin != worker) s = ReadSegment(p.segments + begin);
  if (begin == end) moebius::cuda::AwaitEarlier();
  for (int i = begin; i < end; ++i) {
    if (i > begin) s = ReadSegment(p.segments + i);
    if (i == begin && !Block::kDecode) moebius::cuda::AwaitEarlier();
    block.StartCopies(s);
    if (i == begin && Block::kDecode) moebius::cuda::AwaitEarlier();
    block.AddTiles(s);
    WriteSegment(block, s);
    if (s.slot >= 0 && IsLastOf(s.num_slots, p.arrivals + s.first_slot * gridDim.y + blockIdx.y)) {
      SumPieces(block, s);
    }
    __syncthreads();  // before the next one's tiles
  }
}

template <int kDim, int kRowWarps>
cudaError_t Launch(const GqaParams& p, int num_workers, cudaStream_t stream) {
  using Block = GqaBlock<kDim, kRowWarps>;
  auto* kernel = GqaKernel<kDim, kRowWarps>;
  // Each time: threads of one process may use several devices.
  const cudaError_t allowed = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Block::kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const dim3 grid(
      num_workers,
      p.shape.num_kv_heads * GqaRowBlocks(p.shape.num_heads, p.shape.num_kv_heads, p.max_queries));
  return moebius::cuda::LaunchEarly(kernel, grid, Block::kThreads, Block::kSharedBytes, stream, p);
}

int Positions(int64_t bound) { return static_cast<int>(std::min<int64_t>(bound, INT32_MAX)); }

}  // namespace

int LaunchGqa(const GqaArgs& args, CUstream_st* stream) {
  if (args.num_workers == 0) return cudaSuccess;
  const GqaShape& shape = args.shape;
  if (shape.head_dim != shape.v_head_dim || shape.num_kv_heads < 1 ||
      shape.num_heads % shape.num_kv_heads != 0) {
    return cudaErrorInvalidValue;
  }
  GqaParams p;
  p.shape = shape;
  if (p.shape.q_stride == 0) p.shape.q_stride = int64_t{shape.num_heads} * shape.head_dim;
  p.group = shape.num_heads / shape.num_kv_heads;
  p.window = Positions(shape.window);
  p.chunk = Positions(shape.chunk);
  p.k_bytes = static_cast<uint32_t>(shape.k_stride * 2);
  p.v_bytes = static_cast<uint32_t>(shape.v_stride * 2);
  p.scale_log2 = shape.scale * 1.4426950408889634f;
  p.max_queries = args.max_queries;
  p.segments = args.segments;
  p.num_segments = static_cast<int>(args.num_segments);
  p.worker_begin = args.worker_begin;
  p.partial = static_cast<float*>(args.workspace);
  p.partial_shares = reinterpret_cast<SoftmaxShare*>(
      p.partial + args.max_slots * args.max_queries * shape.num_heads * shape.head_dim);
  p.arrivals = args.arrivals;
  if (IsGqaDecode(shape.num_heads, shape.num_kv_heads, args.max_queries)) {
    if (shape.head_dim == 64) return Launch<64, 1>(p, args.num_workers, stream);
    if (shape.head_dim == 128) return Launch<128, 1>(p, args.num_workers, stream);
    if (shape.head_dim == 256) return Launch<256, 1>(p, args.num_workers, stream);
  } else {
    if (shape.head_dim == 64) return Launch<64, 4>(p, args.num_workers, stream);
    if (shape.head_dim == 128) return Launch<128, 4>(p, args.num_workers, stream);
    if (shape.head_dim == 256) return Launch<256, 4>(p, args.num_workers, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
