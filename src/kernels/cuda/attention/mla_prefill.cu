// A block stays for the launch and takes work after work (prefill_attend.cuh); one thread loads:
// keys and values of a head, expanded, lie one position after the other.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/attention/hopper.cuh"
#include "kernels/cuda/attention/mla_prefill.h"
#include "kernels/cuda/attention/prefill_attend.cuh"
#include "kernels/cuda/attention/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace moebius::kernels::cuda {
namespace {

static_assert(kLatentTile == kPrefillTile && kMlaHead == kPrefillHead);

using LatentParams = PrefillParams<LatentTile>;

struct PrefillMaps {
  CUtensorMap queries;
  CUtensorMap keys;
  CUtensorMap rope;
  CUtensorMap values;
};

struct LatentForm {
  using Tile = LatentTile;
  using Params = LatentParams;
  static constexpr int kQueryColumns = 3;  // 2 of nope, 1 of rope; of keys, too
  static constexpr int kColumnStep = kPrefillColumn;
  static constexpr int kGroupStep = 1024;
  static constexpr bool kIsBounded = false;
  static constexpr bool kHasRest = false;
};
using LatentShared = PrefillShared<LatentForm>;
static_assert(sizeof(LatentShared) + 1024 <= 232448);

struct PrefillLoader {
  using Work = PrefillWork<LatentTile>;

  LatentShared& sh;
  const LatentParams& p;
  const PrefillMaps& maps;
  Turn k;
  Turn v;

  __device__ void LoadQueries(const Work& work) const {
    const uint32_t barrier = SharedAddress(&sh.q_full);
    BarrierExpect(barrier, LatentForm::kQueryColumns * kPrefillColumn);
    CopyBox3(SharedAddress(sh.q[0]), &maps.queries, barrier, 0, work.tile.row,
             LatentForm::kQueryColumns * (p.first_head + work.head));
  }
  __device__ void LoadKeys(const Work& work, int tile) {
    const int stage = k.stage();
    const uint32_t barrier = SharedAddress(&sh.k_full[stage]);
    const int row = work.tile.first_key + tile * kPrefillTile;
    BarrierWait(SharedAddress(&sh.k_empty[stage]), k.parity() ^ 1);
    BarrierExpect(barrier, LatentForm::kQueryColumns * kPrefillColumn);
    CopyBox3(SharedAddress(sh.k[stage][0]), &maps.keys, barrier, 0, row, 2 * work.head);
    CopyBox3(SharedAddress(sh.k[stage][2]), &maps.rope, barrier, 0, row, 8);
    ++k.count;
  }
  __device__ void LoadValues(const Work& work, int tile) {
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
      const Work work = PrefillWorkAt(p, index);
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

__global__ void __launch_bounds__(kPrefillThreads, 1)
    MlaPrefillKernel(const __grid_constant__ PrefillMaps maps,
                     const __grid_constant__ LatentParams p) {
  extern __shared__ uint8_t raw[];
  auto& sh = *reinterpret_cast<LatentShared*>(raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  RunPrefill(sh, p, [&] {
    if (threadIdx.x == 256) PrefillLoader{sh, p, maps}.Run();
  });
}

int MakeMaps(const MlaPrefillLaunch& a, PrefillMaps* maps) {
  const int all_heads = a.first_head + a.num_heads;
  const auto rope = static_cast<const __nv_bfloat16*>(a.latents);
  constexpr int kColumns = LatentForm::kQueryColumns;
  int error = MakeColumnsMap(a.q, a.num_rows, a.q_stride * 2, kColumns * all_heads, kPrefillTile,
                             kColumns, &maps->queries);
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
  const LatentParams p = {args.tiles,
                          args.num_tiles,
                          args.num_heads,
                          args.first_head,
                          window,
                          args.next,
                          static_cast<__nv_bfloat16*>(args.out),
                          args.out_stride,
                          args.scale * 1.4426950408889634f};
  constexpr int kBytes = sizeof(LatentShared) + 1024;
  // Each time: threads of one process may use several devices.
  const cudaError_t allowed =
      cudaFuncSetAttribute(MlaPrefillKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  return moebius::cuda::LaunchEarly(MlaPrefillKernel, std::min(args.num_sms, num_works),
                                    kPrefillThreads, kBytes, stream, maps, p);
}

}  // namespace moebius::kernels::cuda
