// What the attention of prompts' chunks has in common, whatever brings its tiles: 128 queries of
// one head against tiles of 128 positions, from the last one back. Two warpgroups compute 64 rows
// each, one warp loads. A warpgroup asks for the next tile's scores and for the last tile's P V
// together and does the softmax of the scores while the tensor cores still add; the two take turns
// at asking, so that one's softmax lies under the other's products. Device code of mla_prefill.cu
// and gqa_prefill.cu.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {

constexpr int kPrefillTile = 128;  // queries, and positions
constexpr int kPrefillThreads = 384;
constexpr int kPrefillHead = 128;          // width of values
constexpr int kHalf = 64 * 128;            // bytes of 64 rows of a column
constexpr int kPrefillColumn = 2 * kHalf;  // of 128 rows x 64 columns of bfloat16
constexpr int kL2Bytes = 24 << 20;         // keys and values in use at a time
constexpr int kTurn = 1;                   // named barriers, one a warpgroup
constexpr int kOfGroup = 3;                // likewise

template <typename Tile>
struct PrefillParams {
  const Tile* tiles;
  int num_tiles;
  int num_heads;
  int first_head;
  int window_heads;  // whose works come one tile after the other
  int32_t* next;     // blocks take their work from it, but for the first
  __nv_bfloat16* out;
  int64_t out_stride;
  float scale_log2;
};

// A tile of queries (its row, queries and context) of one head.
template <typename Tile>
struct PrefillWork {
  Tile tile;
  int head = 0;  // of the launch; -1: there is no more work
};

// Form says what a kernel's tiles are; it has
//   Tile, Params: params are PrefillParams<Tile>, or more;
//   kQueryColumns: the width of queries and keys in columns of 64;
//   kColumnStep, kGroupStep: bytes from a column of keys and values to the next, and from eight
//       positions to the next eight; queries lie column after column;
//   kIsBounded: the last position of `context` sees none before FirstVisible(params, context), and
//       those of a tile none before FirstTile(params, tile);
//   kHasRest: what lies behind a context in its last tile may be anything.
template <typename Form>
struct PrefillShared {
  uint8_t q[Form::kQueryColumns][kPrefillColumn];
  uint8_t k[2][Form::kQueryColumns][kPrefillColumn];
  uint8_t v[2][2][kPrefillColumn];
  PrefillWork<typename Form::Tile> work;  // whose queries are here
  uint64_t q_full;
  uint64_t q_empty;
  uint64_t k_full[2];
  uint64_t k_empty[2];
  uint64_t v_full[2];
  uint64_t v_empty[2];

  // By one thread.
  __device__ void InitBarriers() {
    BarrierInit(SharedAddress(&q_full), 1);
    BarrierInit(SharedAddress(&q_empty), 8);
    for (int i = 0; i < 2; ++i) {
      BarrierInit(SharedAddress(&k_full[i]), 1);
      BarrierInit(SharedAddress(&k_empty[i]), 8);
      BarrierInit(SharedAddress(&v_full[i]), 1);
      BarrierInit(SharedAddress(&v_empty[i]), 8);
    }
    BarrierInitFence();
  }
};

template <typename Tile>
__device__ int NumTiles(const PrefillWork<Tile>& work) {
  return (work.tile.context + kPrefillTile - 1) / kPrefillTile;
}

// Works of one head lie near each other in the launch's order, and share its keys and values in the
// L2 cache.
template <typename Params>
__device__ auto PrefillWorkAt(const Params& p, int index) {
  const int of_window = p.num_tiles * p.window_heads;
  const int first = index / of_window * p.window_heads;
  const int width = min(p.window_heads, p.num_heads - first);
  const int rest = index - first * p.num_tiles;
  return PrefillWork{p.tiles[rest / width], first + rest % width};
}

// A buffer of a ring of two: which, and the parity of its present use.
struct Turn {
  int count = 0;
  __device__ int stage() const { return count & 1; }
  __device__ uint32_t parity() const { return (count >> 1) & 1; }
};

// One of the two computing warpgroups.
template <typename Form>
struct PrefillGroup {
  using Work = PrefillWork<typename Form::Tile>;

  PrefillShared<Form>& sh;
  const typename Form::Params& p;
  int group;  // 0 or 1: rows 64 group on of the tile
  int thread = threadIdx.x % 128;
  int row = (threadIdx.x % 128) / 32 * 16 + threadIdx.x % 32 / 4;  // of the group; and row + 8
  float o[64];
  float s[64];
  uint32_t packed[32];  // P
  float max[2];
  float sum[2];
  int begin[2];  // the first position that each row sees, where they are bounded
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
    for (int c = 0; c < Form::kQueryColumns; ++c) {
      const uint64_t a = RowsDescriptor(SharedAddress(sh.q[c]) + group * kHalf);
      const uint64_t b =
          RowsDescriptor(SharedAddress(sh.k[stage]) + c * Form::kColumnStep, Form::kGroupStep);
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
    const uint64_t b =
        ColumnsDescriptor(SharedAddress(sh.v[stage]), Form::kColumnStep, Form::kGroupStep);
    Pin(o);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      Wgmma128(o, packed + 4 * step, Advance(b, 2 * Form::kGroupStep * step), true);
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

  // Positions behind a row's own, and those before what it sees, get no weight. visible: of the
  // tile, by the group's first row; first: the tile's first position.
  __device__ void Mask(int visible, int first) {
    const bool cuts_begin = Form::kIsBounded && first < begin[1];
    if (visible >= kPrefillTile && !cuts_begin) return;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
      const int r = i / 2 % 2;
      if (column >= visible + row + r * 8) s[i] = -INFINITY;
      if constexpr (Form::kIsBounded) {
        if (first + column < begin[r]) s[i] = -INFINITY;
      }
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

  __device__ void Store(const Work& work) const {
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
                                      (p.first_head + work.head) * kPrefillHead + thread % 4 * 2);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        out[4 * j] = PackBf16(o[4 * j + 2 * r] * factor, o[4 * j + 2 * r + 1] * factor);
      }
    }
  }

  // What lies behind the context in its last tile of values may be NaN, which a weight of zero does
  // not hide. Both groups do it, to all of it: neither waits for the other.
  __device__ void ClearRest(const Work& work) {
    const int rest = work.tile.context % kPrefillTile;
    if (rest == 0) return;
    BarrierWait(SharedAddress(&sh.v_full[v.stage()]), v.parity());
    uint8_t* const values = sh.v[v.stage()][0];
    for (int i = rest * 16 + thread; i < kPrefillTile * 16; i += 128) {
      const int position = i / 16;
      const int at = position / 8 * Form::kGroupStep + i % 16 / 8 * Form::kColumnStep +
                     position % 8 * 128 + i % 8 * 16;
      *reinterpret_cast<uint4*>(values + at) = make_uint4(0, 0, 0, 0);
    }
    FenceAsync();
    NamedSync(kOfGroup + group, 128);
  }

  __device__ void Attend(const Work& work) {
    // Of the group's first row; each behind it sees one more.
    const int visible = work.tile.context - work.tile.queries + 1 + 64 * group;
    float factor[2];
#pragma unroll
    for (int i = 0; i < 64; ++i) o[i] = 0;
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0;
    int first_tile = 0;
    if constexpr (Form::kIsBounded) {
      begin[0] = Form::FirstVisible(p, visible + row);
      begin[1] = Form::FirstVisible(p, visible + row + 8);
      first_tile = Form::FirstTile(p, work.tile);
    }
    int tile = NumTiles(work) - 1;
    StartScores();
    WgmmaWait<0>();
    KeysAreRead();
    if (tile == first_tile) Release(sh.q_empty);
    Mask(visible - tile * kPrefillTile, tile * kPrefillTile);
    Softmax(factor);
    Pack();
    if constexpr (Form::kHasRest) ClearRest(work);
    while (--tile >= first_tile) {
      NamedSync(kTurn + group, 256);
      StartScores();
      StartAdd();
      NamedArrive(kTurn + (group ^ 1), 256);
      WgmmaWait<1>();
      KeysAreRead();
      if (tile == first_tile) Release(sh.q_empty);
      Mask(visible - tile * kPrefillTile, tile * kPrefillTile);
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
      const Work work = sh.work;
      __syncwarp();  // all have read it before one lane gives it back, with the queries
      if (work.head < 0) break;
      Attend(work);
    }
    if (group == 0) NamedSync(kTurn, 256);  // what the other has left there
  }
};

// A kernel's blocks of kPrefillThreads. load(): of the third warpgroup's first warp.
template <typename Form, typename Load>
__device__ __forceinline__ void RunPrefill(PrefillShared<Form>& sh, const typename Form::Params& p,
                                           const Load& load) {
  if (threadIdx.x == 0) sh.InitBarriers();
  __syncthreads();
  moebius::cuda::AwaitEarlier();
  const int group = threadIdx.x / 128;
  if (group == 2) {
    FewerRegisters<56>();
    if (threadIdx.x < 288) load();
  } else {
    MoreRegisters<224>();
    PrefillGroup<Form>{sh, p, group}.Run();
  }
}

}  // namespace moebius::kernels::cuda
