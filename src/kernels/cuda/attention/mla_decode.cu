// One block: 64 heads of one row against tiles of 64 positions. Shared memory holds the queries and
// two tiles of the cache (K, of which the first 512 columns are also V); a warpgroup's registers
// hold half of the output (64 x 256), so two warpgroups hold it all. Tiles go in pairs. For a pair
// (0, 1):
//
//   left:   S0 = Q K0^T, softmax, publish P0;  O_left += P0 V0_left;   O_left += P1 V1_left
//   right:  S1 = Q K1^T;  O_right += P0 V0_right, under it softmax of S1, publish P1;
//           O_right += P1 V1_right
//
// so that the tensor cores have one group's product while the other group is in its softmax. Both
// follow one chain of running maxima: m0 after tile 0 (left), m1 after tile 1 (right). A third
// warpgroup feeds tiles, of an fp8 cache widened to bfloat16: each is loaded as two groups of
// columns with barriers of their own, given back as soon as their one last reader is done.
// (Measured and dropped: clusters of two blocks that load each tile once by multicast lose a third,
// each waiting for the other's release; asking the L2 cache for tiles ahead changes nothing
// where the copy engine loads them.)
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/attention/combine.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/attention/mla_load.cuh"
#include "kernels/cuda/attention/mla_load_fp8.cuh"
#include "kernels/cuda/attention/tensor_map.h"
#include "kernels/cuda/attention/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

constexpr int kThreads = 384;

// How tiles come to shared memory.
enum class Tiles {
  kWhole,   // a box a tile and half its columns, bfloat16
  kPieces,  // a box a block of the cache and column
  kFp8,     // through registers
};
constexpr float kLog2E = 1.4426950408889634f;

// Named barriers.
constexpr int kP0Ready = 1;
constexpr int kP1Ready = 2;
constexpr int kLeft = 3;
constexpr int kRight = 4;
constexpr int kSegmentEnd = 5;  // and 3 more: by segment parity, by the group that arrives

__device__ MlaWork MyWork(const MlaParams& p) {
  const int head_blocks = (p.num_heads + 63) / 64;
  const int worker = blockIdx.x / head_blocks;
  return {p.worker_begin[worker], p.worker_begin[worker + 1],
          static_cast<int>(blockIdx.x) % head_blocks};
}

// ---------------------------------------------------------------- the two computing groups

// What both groups share: rows of the thread, scores, softmax. kGroup 0 is left, 1 right.
template <int kGroup>
struct Group {
  MlaShared& sh;
  const MlaParams& p;
  int thread = threadIdx.x % 128;
  int row = (threadIdx.x % 128) / 32 * 16 + threadIdx.x % 32 / 4;  // and row + 8
  float o[128];
  float s[32];
  uint32_t packed[16];
  float max[2];
  float sum[2];
  uint32_t q_phase = 0;
  uint32_t phase[2] = {0, 0};  // of the tile buffers

  // Gives a group of columns back to the loader.
  __device__ void Release(int group) {
    if (thread % 32 == 0) BarrierArrive(SharedAddress(&sh.empty[group]));
  }

  __device__ void ScoreColumns(int buffer, int first, int count, bool& accumulate) {
    for (int c = first; c < first + count; ++c) {
      const uint64_t a = RowsDescriptor(SharedAddress(sh.q[c]));
      const uint64_t b = RowsDescriptor(SharedAddress(sh.k[buffer][c]));
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        Wgmma64(s, Advance(a, 32 * step), Advance(b, 32 * step), accumulate);
        accumulate = true;
      }
    }
  }
  // s = Q K^T for this group's tile buffer, columns in the order in which they arrive.
  __device__ void Scores() {
    constexpr int kFirst = kGroup == 0 ? 0 : 4;
    bool accumulate = false;
    Pin(s);
    BarrierWait(SharedAddress(&sh.full[2 * kGroup]), phase[kGroup]);
    WgmmaFence();
#pragma unroll
    for (int c = kFirst; c < kFirst + 4; ++c) ScoreColumns(kGroup, c, 1, accumulate);
    if (kGroup == 0) ScoreColumns(kGroup, 8, 1, accumulate);
    WgmmaCommit();
    BarrierWait(SharedAddress(&sh.full[2 * kGroup + 1]), phase[kGroup]);
#pragma unroll
    for (int c = 4 - kFirst; c < 8 - kFirst; ++c) ScoreColumns(kGroup, c, 1, accumulate);
    if (kGroup == 1) ScoreColumns(kGroup, 8, 1, accumulate);
    WgmmaCommit();
    WgmmaWait<0>();
    Pin(s);
  }

  // The row's last tile: positions beyond the context get no weight, and as 0 x NaN is NaN, no
  // value either.
  __device__ void CutTail(int valid) {
    if (valid >= 64) return;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if (i / 4 * 8 + thread % 4 * 2 + i % 2 >= valid) s[i] = -INFINITY;
    }
    for (int i = thread; i < (64 - valid) * 64; i += 128) {
      const int unit = i % 64;
      uint8_t* at = sh.k[kGroup][unit / 8] + (valid + i / 64) * 128 + unit % 8 * 16;
      *reinterpret_cast<uint4*>(at) = make_uint4(0, 0, 0, 0);
    }
    FenceAsync();
    NamedSync(kGroup == 0 ? kLeft : kRight, 128);
  }

  __device__ void RowMax(float (&top)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = -INFINITY;
#pragma unroll
      for (int j = 0; j < 8; ++j) m = fmaxf(m, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      top[r] = m * p.scale_log2;
    }
  }
  // s becomes 2^(s - max), packed; its sum is added to `sum`.
  __device__ void Exponentials() {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float a = Exp2(fmaf(s[4 * j + 2 * r], p.scale_log2, -max[r]));
        const float b = Exp2(fmaf(s[4 * j + 2 * r + 1], p.scale_log2, -max[r]));
        sum[r] += a + b;
        packed[2 * j + r] = PackBf16(a, b);
      }
    }
  }
  __device__ void Publish(uint8_t* column) const {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int at = (row + 8 * r) * 128 + ((j ^ (row & 7)) << 4) + thread % 4 * 4;
        *reinterpret_cast<uint32_t*>(column + at) = packed[2 * j + r];
      }
    }
    FenceAsync();
  }
  __device__ void RescaleOutput(const float (&by)[2]) {
    if (__all_sync(~0u, by[0] == 1.0f && by[1] == 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 128; ++i) o[i] *= by[i / 2 % 2];
  }
  // Moves the running maximum to `next`; returns the factor for what was summed before.
  __device__ void MoveMax(const float (&next)[2], float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factor[r] = Exp2(max[r] - next[r]);
      max[r] = next[r];
      sum[r] *= factor[r];
    }
  }

  // o += P V, this group's half of the columns; P from registers or from shared memory.
  __device__ void AddOwn(int buffer) {
    const uint64_t v = ColumnsDescriptor(SharedAddress(sh.k[buffer][4 * kGroup]), kMlaColumn);
    Pin(o);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma256(o, packed + 4 * step, Advance(v, 2048 * step), true);
    }
    WgmmaCommit();
  }
  __device__ void AddOther(int buffer, const uint8_t* weights) {
    const uint64_t v = ColumnsDescriptor(SharedAddress(sh.k[buffer][4 * kGroup]), kMlaColumn);
    const uint64_t a = RowsDescriptor(SharedAddress(weights));
    Pin(o);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma256(o, Advance(a, 32 * step), Advance(v, 2048 * step), true);
    }
    WgmmaCommit();
  }
  __device__ void FinishAdd() {
    WgmmaWait<0>();
    Pin(o);
  }

  __device__ void StartSegment() {
#pragma unroll
    for (int i = 0; i < 128; ++i) o[i] = 0;
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0;
    BarrierWait(SharedAddress(&sh.q_full), q_phase);
    q_phase ^= 1;
  }
  __device__ void ReleaseQueries() {
    if (thread % 32 == 0) BarrierArrive(SharedAddress(&sh.q_empty));
  }

  __device__ void FinishSegment(const AttentionSegment& segment, int head_block, int parity) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
      if (thread % 4 == 0) sh.sum[parity][kGroup][row + 8 * r] = sum[r];
    }
    // A barrier each way: both groups waiting for one would be two places of the program
    // (NamedSync).
    NamedArrive(kSegmentEnd + 2 * parity + kGroup, 256);
    NamedSync(kSegmentEnd + 2 * parity + (kGroup ^ 1), 256);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float total = sh.sum[parity][0][row + 8 * r] + sh.sum[parity][1][row + 8 * r];
      const float factor = 1.0f / total;
      const int head = head_block * 64 + row + 8 * r;
      if (head >= p.num_heads) continue;
      const int64_t column = 256 * kGroup + thread % 4 * 2;
      if (segment.slot < 0) {
        const int64_t at = (static_cast<int64_t>(segment.row) * p.num_heads + head) * kMlaLatent;
        auto* out = reinterpret_cast<uint32_t*>(p.out + at + column);
#pragma unroll
        for (int j = 0; j < 32; ++j) {
          out[4 * j] = PackBf16(o[4 * j + 2 * r] * factor, o[4 * j + 2 * r + 1] * factor);
        }
      } else {
        const int64_t at = static_cast<int64_t>(segment.slot) * p.num_heads + head;
        auto* out = reinterpret_cast<float2*>(p.partial + at * kMlaLatent + column);
#pragma unroll
        for (int j = 0; j < 32; ++j) {
          out[4 * j] = make_float2(o[4 * j + 2 * r] * factor, o[4 * j + 2 * r + 1] * factor);
        }
        if (kGroup == 0 && thread % 4 == 0) p.partial_lse[at] = max[r] + log2f(total);
      }
    }
  }
};

__device__ void RunLeft(MlaShared& sh, const MlaParams& p, const MlaWork& work) {
  Group<0> g{sh, p};
  for (int i = work.begin; i < work.end; ++i) {
    const AttentionSegment segment = p.segments[i];
    g.StartSegment();
    for (int tile = segment.begin_tile; tile < segment.end_tile; tile += 2) {
      const bool pair = tile + 1 < segment.end_tile;
      g.Scores();
      if (tile + 2 >= segment.end_tile) g.ReleaseQueries();
      g.CutTail(segment.context - tile * 64);
      float top[2];
      float factor[2];
      g.RowMax(top);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        top[r] = fmaxf(top[r], g.max[r]);
        if (g.thread % 4 == 0) sh.max0[g.row + 8 * r] = top[r];
      }
      g.MoveMax(top, factor);
      g.Exponentials();
      g.Publish(sh.p0);
      NamedArrive(kP0Ready, 256);
      g.RescaleOutput(factor);
      g.AddOwn(0);
      if (pair) NamedSync(kP1Ready, 256);
      g.FinishAdd();
      g.Release(0);
      g.phase[0] ^= 1;
      if (!pair) continue;
#pragma unroll
      for (int r = 0; r < 2; ++r) top[r] = sh.max1[g.row + 8 * r];
      g.MoveMax(top, factor);
      g.RescaleOutput(factor);
      BarrierWait(SharedAddress(&sh.full[3]), g.phase[1]);
      g.phase[1] ^= 1;
      g.AddOther(1, sh.k[1][8]);
      g.FinishAdd();
      g.Release(3);
    }
    g.FinishSegment(segment, work.head_block, (i - work.begin) & 1);
  }
}

__device__ void RunRight(MlaShared& sh, const MlaParams& p, const MlaWork& work) {
  Group<1> g{sh, p};
  for (int i = work.begin; i < work.end; ++i) {
    const AttentionSegment segment = p.segments[i];
    g.StartSegment();
    for (int tile = segment.begin_tile; tile < segment.end_tile; tile += 2) {
      const bool pair = tile + 1 < segment.end_tile;
      float top[2];
      float factor[2];
      if (pair) g.Scores();
      if (tile + 2 >= segment.end_tile) g.ReleaseQueries();
      if (pair) {
        g.CutTail(segment.context - (tile + 1) * 64);
        g.RowMax(top);
      }
      NamedSync(kP0Ready, 256);
      float first[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) first[r] = sh.max0[g.row + 8 * r];
      g.MoveMax(first, factor);
      g.RescaleOutput(factor);
      BarrierWait(SharedAddress(&sh.full[1]), g.phase[0]);
      g.phase[0] ^= 1;
      g.AddOther(0, sh.p0);
      if (pair) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          top[r] = fmaxf(top[r], g.max[r]);
          if (g.thread % 4 == 0) sh.max1[g.row + 8 * r] = top[r];
        }
        g.MoveMax(top, factor);
        g.Exponentials();
        g.Publish(sh.k[1][8]);
        NamedArrive(kP1Ready, 256);
      }
      g.FinishAdd();
      g.Release(1);
      if (!pair) continue;
      g.phase[1] ^= 1;
      g.RescaleOutput(factor);
      g.AddOwn(1);
      g.FinishAdd();
      g.Release(2);
    }
    g.FinishSegment(segment, work.head_block, (i - work.begin) & 1);
  }
}

template <Tiles kTiles>
__global__ void __launch_bounds__(kThreads, 1)
    MlaDecodeKernel(const __grid_constant__ CUtensorMap q_map,
                    const __grid_constant__ CUtensorMap kv_map,
                    const __grid_constant__ CUtensorMap rope_map,
                    const __grid_constant__ MlaParams p) {
  extern __shared__ uint8_t raw[];
  MlaShared& sh = *reinterpret_cast<MlaShared*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    PrefetchMap(&q_map);
    PrefetchMap(&kv_map);
    PrefetchMap(&rope_map);
    for (int i = 0; i < 4; ++i) {
      // fp8: the four loading warps, and rotated keys with columns 0-3.
      const int fills = kTiles != Tiles::kFp8 ? 1 : (i == 0 || i == 3 ? 5 : 4);
      BarrierInit(SharedAddress(&sh.full[i]), fills);
      BarrierInit(SharedAddress(&sh.empty[i]), 4);
    }
    BarrierInit(SharedAddress(&sh.q_full), 1);
    BarrierInit(SharedAddress(&sh.q_empty), 8);
    BarrierInitFence();
  }
  // Rows of heads that are not there stay zero.
  if (p.num_heads < 64) {
    const int rows = 64 - p.num_heads;
    for (int i = threadIdx.x; i < kMlaColumns * rows * 8; i += kThreads) {
      uint8_t* at = sh.q[i / (rows * 8)] + p.num_heads * 128 + i % (rows * 8) * 16;
      *reinterpret_cast<uint4*>(at) = make_uint4(0, 0, 0, 0);
    }
    FenceAsync();
  }
  __syncthreads();

  moebius::cuda::AwaitEarlier();
  const MlaWork work = MyWork(p);
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);  // seen to be one in a warp
  constexpr bool kIsFp8 = kTiles == Tiles::kFp8;
  if (group == 2) {
    FewerRegisters<kIsFp8 ? 104 : 56>();
    if constexpr (kIsFp8) {
      MlaFp8Loader loader{sh, p, &q_map, &rope_map};
      loader.Run(work);
    } else if (threadIdx.x / 32 == 8) {
      MlaLoader<kTiles == Tiles::kWhole> loader{
          sh, p, &q_map, &kv_map, &rope_map, static_cast<int>(threadIdx.x % 32)};
      loader.Run(work);
    }
  } else if (group == 0) {
    MoreRegisters<kIsFp8 ? 192 : 224>();
    RunLeft(sh, p, work);
  } else {
    MoreRegisters<kIsFp8 ? 208 : 224>();
    RunRight(sh, p, work);
  }
}

template <Tiles kTiles>
cudaError_t Launch(const MlaDecodeArgs& args, const MlaParams& p, cudaStream_t stream) {
  CUtensorMap q_map;
  CUtensorMap kv_map;
  CUtensorMap rope_map;
  const int box_heads = args.num_heads < 64 ? args.num_heads : 64;
  const int box_rows = args.block_size < 64 ? args.block_size : 64;
  constexpr int kRowBytes = kMlaWidth * 2;
  int error = MakeColumnsMap(args.q, args.num_rows * args.num_heads, kRowBytes, kMlaColumns,
                             box_heads, 1, &q_map);
  if (error == 0 && kTiles == Tiles::kFp8) {
    constexpr LatentRow kLayout = MlaFp8Loader::kLayout;
    const auto* ropes = static_cast<const uint8_t*>(args.cache) + kLayout.rope_at();
    error = MakeColumnsMap(ropes, args.cache_rows, kLayout.bytes(), 1, box_rows, 1, &rope_map);
    kv_map = rope_map;
  } else if (error == 0) {
    error = MakeColumnsMap(args.cache, args.cache_rows, kRowBytes, kMlaColumns, box_rows,
                           kTiles == Tiles::kWhole ? 4 : 1, &kv_map);
    if (error == 0) {
      error = MakeColumnsMap(args.cache, args.cache_rows, kRowBytes, kMlaColumns, box_rows, 1,
                             &rope_map);
    }
  }
  if (error != 0) return static_cast<cudaError_t>(error);
  auto* kernel = MlaDecodeKernel<kTiles>;
  constexpr int kBytes = sizeof(MlaShared) + 1024;
  // Each time: threads of one process may use several devices.
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  return moebius::cuda::LaunchEarly(kernel, args.num_workers * ((args.num_heads + 63) / 64),
                                    kThreads, kBytes, stream, q_map, kv_map, rope_map, p);
}

}  // namespace

int LaunchMlaDecode(const MlaDecodeArgs& args, CUstream_st* stream) {
  if (args.num_rows == 0) return cudaSuccess;
  const bool heads_fit = args.num_heads > 0 && (args.num_heads % 64 == 0 ||
                                                (args.num_heads < 64 && args.num_heads % 8 == 0));
  const bool blocks_fit = args.block_size >= 8 && (args.block_size & (args.block_size - 1)) == 0;
  if (!heads_fit || !blocks_fit) return cudaErrorInvalidValue;
  auto* partial = static_cast<float*>(args.workspace);
  const MlaParams p = {static_cast<const uint8_t*>(args.cache),
                       static_cast<__nv_bfloat16*>(args.out),
                       partial,
                       partial + args.max_slots * args.num_heads * kMlaLatent,
                       args.segments,
                       args.worker_begin,
                       args.block_table,
                       args.max_blocks,
                       static_cast<int32_t>(args.cache_rows),
                       args.num_heads,
                       __builtin_ctz(args.block_size),
                       args.scale * kLog2E};
  const cudaError_t error = args.is_fp8             ? Launch<Tiles::kFp8>(args, p, stream)
                            : args.block_size >= 64 ? Launch<Tiles::kWhole>(args, p, stream)
                                                    : Launch<Tiles::kPieces>(args, p, stream);
  if (error != cudaSuccess) return error;
  CombineArgs combine;
  combine.rows = args.combine;
  combine.num_rows = args.num_combine;
  combine.num_heads = args.num_heads;
  combine.width = kMlaLatent;
  combine.partial = p.partial;
  combine.partial_lse = p.partial_lse;
  combine.out = args.out;
  return LaunchCombine(combine, stream);
}

}  // namespace moebius::kernels::cuda
