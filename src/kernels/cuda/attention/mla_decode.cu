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
// warpgroup feeds tiles: each is loaded as two groups of columns with barriers of their own, given
// back as soon as their one last reader is done. (Measured and dropped: clusters of two blocks that
// load each tile once by multicast lose a third, each waiting for the other's release; asking the
// L2 cache for tiles ahead changes nothing.)
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/attention/combine.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/attention/tensor_map.h"
#include "kernels/cuda/attention/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

constexpr int kColumn = 64 * 64 * 2;  // bytes of 64 rows x 64 columns of bfloat16
constexpr int kColumns = 9;           // 8 latent, 1 rope
constexpr int kThreads = 384;
constexpr float kLog2E = 1.4426950408889634f;

// Named barriers.
constexpr int kP0Ready = 1;
constexpr int kP1Ready = 2;
constexpr int kLeft = 3;
constexpr int kRight = 4;
constexpr int kSegmentEnd = 5;

struct Shared {
  uint8_t q[kColumns][kColumn];
  uint8_t k[2][kColumns][kColumn];
  uint8_t p0[kColumn];  // P1 takes the place of K1's rope column, read by then
  float max0[64];
  float max1[64];
  float sum[2][2][64];  // by segment parity, by group
  // Columns of tile 0: [0] latent 0-3 and rope, [1] latent 4-7; of tile 1: [2] latent 4-7, [3]
  // latent 0-3 and rope.
  uint64_t full[4];
  uint64_t empty[4];
  uint64_t q_full;
  uint64_t q_empty;
};
static_assert(sizeof(Shared) + 1024 <= 232448);

struct Params {
  __nv_bfloat16* out;
  float* partial;      // [slots, num_heads, 512]
  float* partial_lse;  // [slots, num_heads], base 2
  const AttentionSegment* segments;
  const int32_t* worker_begin;
  const int32_t* block_table;
  int64_t max_blocks;
  int32_t cache_rows;
  int32_t num_heads;
  int32_t block_shift;  // log2 of the block size
  float scale_log2;
};

struct Work {
  int begin;
  int end;
  int head_block;
};

__device__ Work MyWork(const Params& p) {
  const int head_blocks = (p.num_heads + 63) / 64;
  const int worker = blockIdx.x / head_blocks;
  return {p.worker_begin[worker], p.worker_begin[worker + 1],
          static_cast<int>(blockIdx.x) % head_blocks};
}

// ---------------------------------------------------------------- the loading warp

// A warp that keeps the two tile buffers filled. Its lanes issue one copy each.
template <bool kWholeTile>
struct Loader {
  Shared& sh;
  const Params& p;
  const CUtensorMap* q_map;
  const CUtensorMap* kv_map;    // boxes of 4 columns (whole tiles), else 1
  const CUtensorMap* rope_map;  // boxes of 1 column
  int lane;
  int32_t ids = 0;       // of 32 entries of the block table from `window` on, one a lane,
  int32_t next_ids = 0;  // and of the 32 behind them
  int32_t window = 0;
  uint32_t parities = 0;  // bit b: of tile buffer b's next use

  // Calls copy(map, piece, column) for the boxes of a group, each once, by one lane.
  template <typename Copying>
  __device__ void ForBoxes(int group, const Copying& copy) const {
    const int first = group == 1 || group == 2 ? 4 : 0;
    const bool rope = first == 0;
    if constexpr (kWholeTile) {
      if (lane == 0) copy(kv_map, 0, first);
      if (lane == 1 && rope) copy(rope_map, 0, 8);
    } else {
      const int shift = 6 - p.block_shift;
      const int count = (rope ? 5 : 4) << shift;
      for (int i = lane; i < count; i += 32) {
        const int column = i >> shift;
        copy(kv_map, i & ((1 << shift) - 1), column == 4 ? 8 : first + column);
      }
    }
  }

  // The cache row where a tile's piece begins; beyond the context, or in a hole of the table: one
  // that reads as zeros. Called by the whole warp, each lane with a piece of its own.
  __device__ int RowOf(const AttentionSegment& s, int tile, int piece) const {
    const int position = tile * 64 + (kWholeTile ? 0 : piece << p.block_shift);
    const int at = (position >> p.block_shift) - window;
    const int32_t here = __shfl_sync(~0u, ids, at & 31);
    const int32_t next = __shfl_sync(~0u, next_ids, at & 31);
    const int32_t id = at < 32 ? here : next;
    if (position >= s.context || id < 0) return p.cache_rows;
    return (id << p.block_shift) + (position & ((1 << p.block_shift) - 1));
  }
  __device__ int PieceOfLane() const { return lane & ((1 << (6 - p.block_shift)) - 1); }

  __device__ int32_t ReadTable(const AttentionSegment& s, int64_t entry) const {
    return entry << p.block_shift < s.context ? p.block_table[s.seq * p.max_blocks + entry] : -1;
  }
  // Moves the window so that it holds the entries of `tile`; the 32 behind are on their way.
  __device__ void MoveWindow(const AttentionSegment& s, int tile, bool first) {
    const int entry = tile * 64 >> p.block_shift;
    if (first) {
      window = entry & ~31;
      ids = ReadTable(s, window + lane);
      next_ids = ReadTable(s, window + 32 + lane);
    } else if (entry >= window + 32) {
      window += 32;
      ids = next_ids;
      next_ids = ReadTable(s, window + 32 + lane);
    }
  }

  __device__ void LoadTile(const AttentionSegment& s, int tile) {
    const int buffer = (tile - s.begin_tile) & 1;
    const uint32_t parity = (parities >> buffer) & 1;
    parities ^= 1u << buffer;
    const int row = RowOf(s, tile, kWholeTile ? 0 : PieceOfLane());
    for (int group = 2 * buffer; group < 2 * buffer + 2; ++group) {
      const uint32_t barrier = SharedAddress(&sh.full[group]);
      BarrierWait(SharedAddress(&sh.empty[group]), parity ^ 1);
      if (lane == 0) BarrierExpect(barrier, (group == 0 || group == 3 ? 5 : 4) * kColumn);
      __syncwarp();
      ForBoxes(group, [&](const CUtensorMap* map, int piece, int column) {
        const int at = kWholeTile ? 0 : piece << (p.block_shift + 7);
        CopyBox3(SharedAddress(sh.k[buffer][column]) + at, map, barrier, 0, row, column);
      });
    }
  }

  __device__ void Run(const Work& work) {
    const int heads = p.num_heads < 64 ? p.num_heads : 64;
    for (int i = work.begin; i < work.end; ++i) {
      const AttentionSegment s = p.segments[i];
      MoveWindow(s, s.begin_tile, true);
      BarrierWait(SharedAddress(&sh.q_empty), ((i - work.begin) & 1) ^ 1);
      if (lane == 0) BarrierExpect(SharedAddress(&sh.q_full), kColumns * heads * 128);
      __syncwarp();
      if (lane < kColumns) {
        CopyBox3(SharedAddress(sh.q[lane]), q_map, SharedAddress(&sh.q_full), 0,
                 s.row * p.num_heads + work.head_block * 64, lane);
      }
      for (int tile = s.begin_tile; tile < s.end_tile; ++tile) {
        MoveWindow(s, tile, false);
        LoadTile(s, tile);
      }
    }
  }
};

// ---------------------------------------------------------------- the two computing groups

// What both groups share: rows of the thread, scores, softmax. kGroup 0 is left, 1 right.
template <int kGroup>
struct Group {
  Shared& sh;
  const Params& p;
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
    const uint64_t v = ColumnsDescriptor(SharedAddress(sh.k[buffer][4 * kGroup]), kColumn);
    Pin(o);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma256(o, packed + 4 * step, Advance(v, 2048 * step), true);
    }
    WgmmaCommit();
  }
  __device__ void AddOther(int buffer, const uint8_t* weights) {
    const uint64_t v = ColumnsDescriptor(SharedAddress(sh.k[buffer][4 * kGroup]), kColumn);
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
    NamedSync(kSegmentEnd, 256);
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

__device__ void RunLeft(Shared& sh, const Params& p, const Work& work) {
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

__device__ void RunRight(Shared& sh, const Params& p, const Work& work) {
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

template <bool kWholeTile>
__global__ void __launch_bounds__(kThreads, 1)
    MlaDecodeKernel(const __grid_constant__ CUtensorMap q_map,
                    const __grid_constant__ CUtensorMap kv_map,
                    const __grid_constant__ CUtensorMap rope_map,
                    const __grid_constant__ Params p) {
  extern __shared__ uint8_t raw[];
  Shared& sh = *reinterpret_cast<Shared*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    PrefetchMap(&q_map);
    PrefetchMap(&kv_map);
    PrefetchMap(&rope_map);
    for (int i = 0; i < 4; ++i) {
      BarrierInit(SharedAddress(&sh.full[i]), 1);
      BarrierInit(SharedAddress(&sh.empty[i]), 4);
    }
    BarrierInit(SharedAddress(&sh.q_full), 1);
    BarrierInit(SharedAddress(&sh.q_empty), 8);
    BarrierInitFence();
  }
  // Rows of heads that are not there stay zero.
  if (p.num_heads < 64) {
    const int rows = 64 - p.num_heads;
    for (int i = threadIdx.x; i < kColumns * rows * 8; i += kThreads) {
      uint8_t* at = sh.q[i / (rows * 8)] + p.num_heads * 128 + i % (rows * 8) * 16;
      *reinterpret_cast<uint4*>(at) = make_uint4(0, 0, 0, 0);
    }
    FenceAsync();
  }
  __syncthreads();

  moebius::cuda::AwaitEarlier();
  const Work work = MyWork(p);
  const int group = threadIdx.x / 128;
  if (group == 2) {
    FewerRegisters<56>();
    if (threadIdx.x / 32 == 8) {
      Loader<kWholeTile> loader{sh,      p,         &q_map,
                                &kv_map, &rope_map, static_cast<int>(threadIdx.x % 32)};
      loader.Run(work);
    }
  } else if (group == 0) {
    MoreRegisters<224>();
    RunLeft(sh, p, work);
  } else {
    MoreRegisters<224>();
    RunRight(sh, p, work);
  }
}

template <bool kWholeTile>
cudaError_t Launch(const MlaDecodeArgs& args, const Params& p, cudaStream_t stream) {
  CUtensorMap q_map;
  CUtensorMap kv_map;
  CUtensorMap rope_map;
  const int box_heads = args.num_heads < 64 ? args.num_heads : 64;
  const int box_rows = args.block_size < 64 ? args.block_size : 64;
  const int row_bytes = kMlaWidth * 2;
  int error = MakeColumnsMap(args.q, args.num_rows * args.num_heads, row_bytes, kColumns, box_heads,
                             1, &q_map);
  if (error == 0) {
    error = MakeColumnsMap(args.cache, args.cache_rows, row_bytes, kColumns, box_rows,
                           kWholeTile ? 4 : 1, &kv_map);
  }
  if (error == 0) {
    error =
        MakeColumnsMap(args.cache, args.cache_rows, row_bytes, kColumns, box_rows, 1, &rope_map);
  }
  if (error != 0) return static_cast<cudaError_t>(error);
  auto* kernel = MlaDecodeKernel<kWholeTile>;
  constexpr int kBytes = sizeof(Shared) + 1024;
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
  const Params p = {static_cast<__nv_bfloat16*>(args.out),
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
  const cudaError_t error =
      args.block_size >= 64 ? Launch<true>(args, p, stream) : Launch<false>(args, p, stream);
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
