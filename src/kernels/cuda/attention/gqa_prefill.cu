// A block stays for the launch and takes work after work (prefill_attend.cuh); one warp loads. A
// box of the copy engine is one head's keys or values in one block of the cache: eight positions
// after the other, their 64-column halves side by side. So a box is 4 KB where blocks have 16
// positions, and no gathered copy is needed.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>

#include "kernels/cuda/attention/gqa_prefill.h"
#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/prefill_attend.cuh"
#include "kernels/cuda/attention/tensor_map.h"
#include "kernels/cuda/attention/visible.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/tuning/gqa_prefill.h"

namespace moebius::kernels::cuda {
namespace {

static_assert(kGqaTile == kPrefillTile && kGqaTile == kPrefillHead);

struct PagedParams : PrefillParams<AttentionItem> {
  const int32_t* block_table;
  int64_t max_blocks;
  int block_shift;  // log2 of the block size
  int piece_shift;  // likewise of a box's positions
  int cache_rows;
  int group;   // heads a kv head
  int window;  // 0: none
  int chunk;
};

struct PagedMaps {
  CUtensorMap queries;
  CUtensorMap keys;
  CUtensorMap values;
};

template <bool kBounded>
struct PagedForm {
  using Tile = AttentionItem;
  using Params = PagedParams;
  static constexpr int kQueryColumns = 2;
  static constexpr int kColumnStep = 1024;
  static constexpr int kGroupStep = kQueryColumns * kColumnStep;
  static constexpr bool kIsBounded = kBounded;
  static constexpr bool kHasRest = true;

  static __device__ int FirstVisible(const PagedParams& p, int context) {
    return cuda::FirstVisible(p.window, p.chunk, context);
  }
  // The first query sees furthest back.
  static __device__ int FirstTile(const PagedParams& p, const AttentionItem& tile) {
    return kBounded ? FirstVisible(p, tile.context - tile.queries + 1) / kPrefillTile : 0;
  }
};

// The warp that loads. Its lanes copy one box of a tile each.
template <typename Form>
struct PagedLoader {
  using Work = PrefillWork<AttentionItem>;
  static constexpr int kTileBytes = 2 * kPrefillColumn;

  PrefillShared<Form>& sh;
  const PagedParams& p;
  const PagedMaps& maps;
  int lane = threadIdx.x % 32;
  Turn k;
  Turn v;

  // The cache row where this lane's piece of a tile begins. Beyond the context, or in a hole of the
  // table: one that reads as zeros.
  __device__ int RowOf(const AttentionItem& item, int tile) const {
    const int position = tile * kPrefillTile + (lane << p.piece_shift);
    if (lane >= kPrefillTile >> p.piece_shift || position >= item.context) return p.cache_rows;
    const int32_t id = p.block_table[item.seq * p.max_blocks + (position >> p.block_shift)];
    if (id < 0) return p.cache_rows;
    return (id << p.block_shift) + (position & ((1 << p.block_shift) - 1));
  }

  __device__ void LoadQueries(const Work& work) const {
    const uint32_t barrier = SharedAddress(&sh.q_full);
    BarrierExpect(barrier, kTileBytes);
    CopyBox3(SharedAddress(sh.q[0]), &maps.queries, barrier, 0, work.tile.row, 2 * work.head);
  }
  __device__ void LoadTile(const CUtensorMap* map, const void* to, uint64_t* full, uint64_t* empty,
                           const Turn& turn, int row, int kv_head) const {
    const uint32_t barrier = SharedAddress(full);
    BarrierWait(SharedAddress(empty), turn.parity() ^ 1);
    if (lane == 0) BarrierExpect(barrier, kTileBytes);
    __syncwarp();
    if (lane < kPrefillTile >> p.piece_shift) {
      CopyBox4(SharedAddress(to) + (lane << p.piece_shift) * 256, map, barrier, 0, 0, 2 * kv_head,
               row >> 3);
    }
  }
  __device__ void LoadKeys(const Work& work, int row) {
    const int stage = k.stage();
    LoadTile(&maps.keys, sh.k[stage], &sh.k_full[stage], &sh.k_empty[stage], k, row,
             work.head / p.group);
    ++k.count;
  }
  __device__ void LoadValues(const Work& work, int row) {
    const int stage = v.stage();
    LoadTile(&maps.values, sh.v[stage], &sh.v_full[stage], &sh.v_empty[stage], v, row,
             work.head / p.group);
    ++v.count;
  }

  __device__ void Run() {
    const int num_works = p.num_tiles * p.num_heads;
    int index = blockIdx.x;
    for (uint32_t n = 0;; ++n) {
      BarrierWait(SharedAddress(&sh.q_empty), (n & 1) ^ 1);
      if (index >= num_works) break;
      // Asked for early: the answer takes a while.
      const int asked = lane == 0 ? atomicAdd(p.next, 1) : 0;
      const Work work = PrefillWorkAt(p, index);
      if (lane == 0) {
        sh.work = work;
        LoadQueries(work);
      }
      const int first = Form::FirstTile(p, work.tile);
      int tile = NumTiles(work) - 1;
      int row = RowOf(work.tile, tile);
      LoadKeys(work, row);
      while (--tile >= first) {
        const int row_before = RowOf(work.tile, tile);
        LoadKeys(work, row_before);
        LoadValues(work, row);
        row = row_before;
      }
      LoadValues(work, row);
      // Every work asks once; the last answer leaves the counter as it was.
      if (lane == 0 && asked == num_works - 1) *p.next = 0;
      index = static_cast<int>(gridDim.x) + __shfl_sync(~0u, asked, 0);
    }
    if (lane == 0) {
      sh.work.head = -1;
      BarrierArrive(SharedAddress(&sh.q_full));
    }
  }
};

template <bool kBounded>
__global__ void __launch_bounds__(kPrefillThreads, 1)
    GqaPrefillKernel(const __grid_constant__ PagedMaps maps,
                     const __grid_constant__ PagedParams p) {
  using Form = PagedForm<kBounded>;
  extern __shared__ uint8_t raw[];
  auto& sh =
      *reinterpret_cast<PrefillShared<Form>*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  RunPrefill(sh, p, [&] { PagedLoader<Form>{sh, p, maps}.Run(); });
}

int MakePagedMaps(const GqaPrefillArgs& a, int64_t q_stride, PagedMaps* maps) {
  const GqaShape& shape = a.shape;
  const int piece = std::min(shape.block_size, kPrefillTile);
  int error = MakeColumnsMap(shape.q, a.num_rows, q_stride * 2, 2 * shape.num_heads, kPrefillTile,
                             2, &maps->queries);
  if (error == 0) {
    error = MakeGroupsMap(shape.k_cache, a.cache_rows, shape.k_stride * 2, 2 * shape.num_kv_heads,
                          piece, 2, &maps->keys);
  }
  if (error == 0) {
    error = MakeGroupsMap(shape.v_cache, a.cache_rows, shape.v_stride * 2, 2 * shape.num_kv_heads,
                          piece, 2, &maps->values);
  }
  return error;
}

bool Takes(const GqaPrefillArgs& a) {
  const GqaShape& s = a.shape;
  return s.head_dim == kPrefillHead && s.v_head_dim == kPrefillHead && s.num_kv_heads > 0 &&
         s.num_heads % s.num_kv_heads == 0 && s.block_size >= 16 &&
         std::has_single_bit(static_cast<unsigned>(s.block_size)) && a.cache_rows <= INT32_MAX &&
         a.cache_rows % s.block_size == 0 && a.next != nullptr;
}

// A bound that no context reaches is none.
int BoundOf(int64_t positions) {
  return positions > 0 && positions < INT32_MAX ? static_cast<int>(positions) : 0;
}

template <bool kBounded>
cudaError_t LaunchPaged(const PagedMaps& maps, const PagedParams& p, int num_sms,
                        cudaStream_t stream) {
  constexpr int kBytes = sizeof(PrefillShared<PagedForm<kBounded>>) + 1024;
  auto* kernel = GqaPrefillKernel<kBounded>;
  // Each time: threads of one process may use several devices.
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  return moebius::cuda::LaunchEarly(kernel, std::min(num_sms, p.num_tiles * p.num_heads),
                                    kPrefillThreads, kBytes, stream, maps, p);
}

}  // namespace

int LaunchGqaPrefill(const GqaPrefillArgs& args, CUstream_st* stream) {
  if (args.num_tiles == 0) return cudaSuccess;
  if (!Takes(args)) return cudaErrorInvalidValue;
  const GqaShape& shape = args.shape;
  const int64_t width = int64_t{shape.num_heads} * kPrefillHead;
  PagedMaps maps;
  const int64_t q_stride = shape.q_stride == 0 ? width : shape.q_stride;
  if (const int error = MakePagedMaps(args, q_stride, &maps); error != 0) return error;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int64_t head_bytes = std::max<int64_t>(1, args.num_keys) * 2 * kPrefillHead * 2;
  const auto kv_heads =
      static_cast<int>(std::clamp<int64_t>(kL2Bytes / head_bytes, 1, shape.num_kv_heads));
  PagedParams p = {};
  p.tiles = args.tiles;
  p.num_tiles = args.num_tiles;
  p.num_heads = shape.num_heads;
  p.window_heads = kv_heads * group;
  p.next = args.next;
  p.out = static_cast<__nv_bfloat16*>(shape.out);
  p.out_stride = width;
  p.scale_log2 = shape.scale * 1.4426950408889634f;
  p.block_table = shape.block_table;
  p.max_blocks = shape.max_blocks;
  p.block_shift = std::countr_zero(static_cast<unsigned>(shape.block_size));
  p.piece_shift = std::min(p.block_shift, 7);
  p.cache_rows = static_cast<int>(args.cache_rows);
  p.group = group;
  p.window = BoundOf(shape.window);
  p.chunk = BoundOf(shape.chunk);
  return p.window > 0 || p.chunk > 0 ? LaunchPaged<true>(maps, p, args.num_sms, stream)
                                     : LaunchPaged<false>(maps, p, args.num_sms, stream);
}

}  // namespace moebius::kernels::cuda
