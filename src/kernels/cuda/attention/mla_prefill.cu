// A block stays for the launch and takes work after work: 128 queries of one head against its
// context's keys and values, tiles of 128 positions from the last one back. Two warpgroups compute
// 64 rows each, one warp's thread loads. A warpgroup asks for the next tile's scores and for the
// last tile's P V together and does the softmax of the scores while the tensor cores still add; the
// two take turns at asking, so that one's softmax lies under the other's products. Works of one
// head lie near each other in the launch's order, and share its keys and values in the L2 cache.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/mla_prefill.h"
#include "kernels/cuda/attention/tensor_map.h"
#include "kernels/cuda/attention/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

constexpr int kPrefillTile = static_cast<int>(kLatentTile);
constexpr int kPrefillThreads = 384;
constexpr int kHalf = 64 * 128;            // bytes of 64 rows of a column
constexpr int kPrefillColumn = 2 * kHalf;  // of 128 rows x 64 columns of bfloat16
constexpr int kQueryColumns = 3;           // 2 of nope, 1 of rope; of keys, too
constexpr int kL2Bytes = 24 << 20;         // keys and values in use at a time
constexpr int kTurn = 1;                   // named barriers, one a warpgroup

struct PrefillWork {
  LatentTile tile;
  int head = 0;  // of the launch; -1: there is no more work
};

struct PrefillShared {
  uint8_t q[kQueryColumns][kPrefillColumn];
  uint8_t k[2][kQueryColumns][kPrefillColumn];
  uint8_t v[2][2][kPrefillColumn];
  PrefillWork work;  // whose queries are here
  uint64_t q_full;
  uint64_t q_empty;
  uint64_t k_full[2];
  uint64_t k_empty[2];
  uint64_t v_full[2];
  uint64_t v_empty[2];
};
static_assert(sizeof(PrefillShared) + 1024 <= 232448);

struct PrefillParams {
  const LatentTile* tiles;
  int num_tiles;
  int num_heads;
  int first_head;
  int window_heads;  // whose works come one tile after the other
  int32_t* next;
  __nv_bfloat16* out;
  int64_t out_stride;
  float scale_log2;
};

struct PrefillMaps {
  CUtensorMap q_nope;
  CUtensorMap q_rope;
  CUtensorMap keys;
  CUtensorMap rope;
  CUtensorMap values;
};

__device__ int NumTiles(const PrefillWork& work) {
  return (work.tile.context + kPrefillTile - 1) / kPrefillTile;
}

// A buffer of a ring of two: which, and the parity of its present use.
struct Turn {
  int count = 0;
  __device__ int stage() const { return count & 1; }
  __device__ uint32_t parity() const { return (count >> 1) & 1; }
};

// ---------------------------------------------------------------- the loading thread

struct PrefillLoader {
  PrefillShared& sh;
  const PrefillParams& p;
  const PrefillMaps& maps;
  Turn k;
  Turn v;

  __device__ PrefillWork WorkAt(int index) const {
    const int of_window = p.num_tiles * p.window_heads;
    const int first = index / of_window * p.window_heads;
    const int width = min(p.window_heads, p.num_heads - first);
    const int rest = index - first * p.num_tiles;
    return {p.tiles[rest / width], first + rest % width};
  }

  __device__ void LoadQueries(const PrefillWork& work) const {
    const uint32_t barrier = SharedAddress(&sh.q_full);
    const int head = p.first_head + work.head;
    BarrierExpect(barrier, kQueryColumns * kPrefillColumn);
    CopyBox3(SharedAddress(sh.q[0]), &maps.q_nope, barrier, 0, work.tile.row, 2 * head);
    CopyBox3(SharedAddress(sh.q[2]), &maps.q_rope, barrier, 0, work.tile.row, head);
  }
  __device__ void LoadKeys(const PrefillWork& work, int tile) {
    const int stage = k.stage();
    const uint32_t barrier = SharedAddress(&sh.k_full[stage]);
    const int row = work.tile.first_key + tile * kPrefillTile;
    BarrierWait(SharedAddress(&sh.k_empty[stage]), k.parity() ^ 1);
    BarrierExpect(barrier, kQueryColumns * kPrefillColumn);
    CopyBox3(SharedAddress(sh.k[stage][0]), &maps.keys, barrier, 0, row, 2 * work.head);
    CopyBox3(SharedAddress(sh.k[stage][2]), &maps.rope, barrier, 0, row, 8);
    ++k.count;
  }
  __device__ void LoadValues(const PrefillWork& work, int tile) {
    const int stage = v.stage();
    const uint32_t barrier = SharedAddress(&sh.v_full[stage]);
    const int row = work.tile.first_key + tile * kPrefillTile;
    BarrierWait(SharedAddress(&sh.v_empty[stage]), v.parity() ^ 1);
    BarrierExpect(barrier, 2 * kPrefillColumn);
    CopyBox3(SharedAddress(sh.v[stage][0]), &maps.values, barrier, 0, row, 2 * work.head);
    ++v.count;
  }

  __device__ void Run() {
    const int num_works = p.num_tiles * p.num_heads;
    int index = blockIdx.x;
    for (uint32_t n = 0;; ++n) {
      BarrierWait(SharedAddress(&sh.q_empty), (n & 1) ^ 1);
      if (index >= num_works) break;
      // Asked for early: the answer takes a while.
      const int next = static_cast<int>(gridDim.x) + atomicAdd(p.next, 1);
      const PrefillWork work = WorkAt(index);
      sh.work = work;
      LoadQueries(work);
      const int last = NumTiles(work) - 1;
      LoadKeys(work, last);
      for (int tile = last - 1; tile >= 0; --tile) {
        LoadKeys(work, tile);
        LoadValues(work, tile + 1);
      }
      LoadValues(work, 0);
      index = next;
    }
    sh.work.head = -1;
    BarrierArrive(SharedAddress(&sh.q_full));
  }
};

// ---------------------------------------------------------------- the two computing groups

struct PrefillGroup {
  PrefillShared& sh;
  const PrefillParams& p;
  int group;  // 0 or 1: rows 64 group on of the tile
  int thread = threadIdx.x % 128;
  int row = (threadIdx.x % 128) / 32 * 16 + threadIdx.x % 32 / 4;  // of the group; and row + 8
  float o[64];
  float s[64];
  uint32_t packed[32];  // P
  float max[2];
  float sum[2];
  Turn k;
  Turn v;
  uint32_t q_parity = 0;

  __device__ void Release(uint64_t& barrier) const {
    if (thread % 32 == 0) BarrierArrive(SharedAddress(&barrier));
  }

  // s = Q K^T, when the keys are there.
  __device__ void StartScores() {
    const int stage = k.stage();
    BarrierWait(SharedAddress(&sh.k_full[stage]), k.parity());
    Pin(s);
    WgmmaFence();
#pragma unroll
    for (int c = 0; c < kQueryColumns; ++c) {
      const uint64_t a = RowsDescriptor(SharedAddress(sh.q[c]) + group * kHalf);
      const uint64_t b = RowsDescriptor(SharedAddress(sh.k[stage][c]));
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        Wgmma128(s, Advance(a, 32 * step), Advance(b, 32 * step), c > 0 || step > 0);
      }
    }
    WgmmaCommit();
  }
  __device__ void KeysAreRead() {
    Pin(s);
    Release(sh.k_empty[k.stage()]);
    ++k.count;
  }

  // o += P V, when the values are there.
  __device__ void StartAdd() {
    const int stage = v.stage();
    BarrierWait(SharedAddress(&sh.v_full[stage]), v.parity());
    const uint64_t b = ColumnsDescriptor(SharedAddress(sh.v[stage][0]), kPrefillColumn);
    Pin(o);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      Wgmma128(o, packed + 4 * step, Advance(b, 2048 * step), true);
    }
    WgmmaCommit();
  }
  __device__ void FinishAdd() {
    WgmmaWait<0>();
    Pin(o);
    Pin(packed);
    Release(sh.v_empty[v.stage()]);
    ++v.count;
  }

  // Positions behind a row's own get no weight. visible: of the tile, by the group's first row.
  __device__ void Mask(int visible) {
    if (visible >= kPrefillTile) return;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
      if (column >= visible + row + (i / 2 % 2) * 8) s[i] = -INFINITY;
    }
  }

  // s becomes 2^(s - max), its sum is added to `sum`; returns the factors of what was summed
  // before.
  __device__ void Softmax(float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = s[2 * r];
#pragma unroll
      for (int j = 0; j < 16; ++j) top = fmaxf(top, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      top = fmaxf(max[r], top * p.scale_log2);
      const float base = top == -INFINITY ? 0.0f : top;  // nothing visible yet
      factor[r] = Exp2(max[r] - base);
      max[r] = top;
      float added = 0;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        float& a = s[4 * j + 2 * r];
        float& b = s[4 * j + 2 * r + 1];
        a = Exp2(fmaf(a, p.scale_log2, -base));
        b = Exp2(fmaf(b, p.scale_log2, -base));
        added += a + b;
      }
      sum[r] = sum[r] * factor[r] + added;
    }
  }
  __device__ void Pack() {
#pragma unroll
    for (int i = 0; i < 32; ++i) packed[i] = PackBf16(s[2 * i], s[2 * i + 1]);
  }
  __device__ void Rescale(const float (&factor)[2]) {
    if (__all_sync(~0u, factor[0] == 1.0f && factor[1] == 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 64; ++i) o[i] *= factor[i / 2 % 2];
  }

  __device__ void Store(const PrefillWork& work) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[r];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float factor = 1.0f / total;
      const int of_tile = 64 * group + row + 8 * r;
      if (of_tile >= work.tile.queries) continue;
      auto* out =
          reinterpret_cast<uint32_t*>(p.out + (work.tile.row + of_tile) * p.out_stride +
                                      (p.first_head + work.head) * kMlaHead + thread % 4 * 2);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        out[4 * j] = PackBf16(o[4 * j + 2 * r] * factor, o[4 * j + 2 * r + 1] * factor);
      }
    }
  }

  __device__ void Attend(const PrefillWork& work) {
    // Of the group's first row; each behind it sees one more.
    const int visible = work.tile.context - work.tile.queries + 1 + 64 * group;
    float factor[2];
#pragma unroll
    for (int i = 0; i < 64; ++i) o[i] = 0;
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0;
    int tile = NumTiles(work) - 1;
    StartScores();
    WgmmaWait<0>();
    KeysAreRead();
    if (tile == 0) Release(sh.q_empty);
    Mask(visible - tile * kPrefillTile);
    Softmax(factor);
    Pack();
    while (--tile >= 0) {
      NamedSync(kTurn + group, 256);
      StartScores();
      StartAdd();
      NamedArrive(kTurn + (group ^ 1), 256);
      WgmmaWait<1>();
      KeysAreRead();
      if (tile == 0) Release(sh.q_empty);
      Mask(visible - tile * kPrefillTile);
      Softmax(factor);
      FinishAdd();
      Rescale(factor);
      Pack();
    }
    StartAdd();
    FinishAdd();
    Store(work);
  }

  __device__ void Run() {
    if (group == 1) NamedArrive(kTurn, 256);
    for (;; q_parity ^= 1) {
      BarrierWait(SharedAddress(&sh.q_full), q_parity);
      const PrefillWork work = sh.work;
      __syncwarp();  // all have read it before one lane gives it back, with the queries
      if (work.head < 0) break;
      Attend(work);
    }
    if (group == 0) NamedSync(kTurn, 256);  // what the other has left there
  }
};

__global__ void __launch_bounds__(kPrefillThreads, 1)
    MlaPrefillKernel(const __grid_constant__ PrefillMaps maps,
                     const __grid_constant__ PrefillParams p) {
  extern __shared__ uint8_t raw[];
  auto& sh = *reinterpret_cast<PrefillShared*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    BarrierInit(SharedAddress(&sh.q_full), 1);
    BarrierInit(SharedAddress(&sh.q_empty), 8);
    for (int i = 0; i < 2; ++i) {
      BarrierInit(SharedAddress(&sh.k_full[i]), 1);
      BarrierInit(SharedAddress(&sh.k_empty[i]), 8);
      BarrierInit(SharedAddress(&sh.v_full[i]), 1);
      BarrierInit(SharedAddress(&sh.v_empty[i]), 8);
    }
    BarrierInitFence();
  }
  __syncthreads();
  moebius::cuda::AwaitEarlier();
  const int group = threadIdx.x / 128;
  if (group == 2) {
    FewerRegisters<56>();
    if (threadIdx.x == 256) PrefillLoader{sh, p, maps}.Run();
  } else {
    MoreRegisters<224>();
    PrefillGroup{sh, p, group}.Run();
  }
}

int MakeMaps(const MlaPrefillLaunch& a, PrefillMaps* maps) {
  const int all_heads = a.first_head + a.num_heads;
  const auto rope = static_cast<const __nv_bfloat16*>(a.latents);
  int error = MakeColumnsMap(a.q_nope, a.num_rows, a.q_nope_stride * 2, 2 * all_heads, kPrefillTile,
                             2, &maps->q_nope);
  if (error == 0) {
    error = MakeColumnsMap(a.q_rope, a.num_rows, a.q_rope_stride * 2, all_heads, kPrefillTile, 1,
                           &maps->q_rope, a.q_rope_head_stride * 2);
  }
  if (error == 0) {
    error = MakeColumnsMap(a.keys, a.num_keys, a.expanded_stride * 2, 2 * a.num_heads, kPrefillTile,
                           2, &maps->keys);
  }
  if (error == 0) {
    error = MakeColumnsMap(rope, a.num_keys, 576 * 2, 9, kPrefillTile, 1, &maps->rope);
  }
  if (error == 0) {
    error = MakeColumnsMap(a.values, a.num_keys, a.expanded_stride * 2, 2 * a.num_heads,
                           kPrefillTile, 2, &maps->values);
  }
  return error;
}

}  // namespace

int LaunchMlaPrefill(const MlaPrefillLaunch& args, CUstream_st* stream) {
  const int num_works = args.num_tiles * args.num_heads;
  if (num_works == 0) return cudaSuccess;
  PrefillMaps maps;
  if (const int error = MakeMaps(args, &maps); error != 0) return error;
  const int64_t head_bytes = int64_t{args.num_keys} * 2 * kMlaHead * 2;
  const auto window =
      static_cast<int>(std::clamp<int64_t>(kL2Bytes / head_bytes, 1, args.num_heads));
  const PrefillParams p = {args.tiles,
                           args.num_tiles,
                           args.num_heads,
                           args.first_head,
                           window,
                           args.next,
                           static_cast<__nv_bfloat16*>(args.out),
                           args.out_stride,
                           args.scale * 1.4426950408889634f};
  constexpr int kBytes = sizeof(PrefillShared) + 1024;
  // Each time: threads of one process may use several devices.
  const cudaError_t allowed =
      cudaFuncSetAttribute(MlaPrefillKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  return moebius::cuda::LaunchEarly(MlaPrefillKernel, std::min(args.num_sms, num_works),
                                    kPrefillThreads, kBytes, stream, maps, p);
}

}  // namespace moebius::kernels::cuda
