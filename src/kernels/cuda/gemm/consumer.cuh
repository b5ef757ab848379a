// The multiplying side of a grouped GEMM block: one warpgroup's walk over the tiles, stage after
// stage.
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm/add_parts.cuh"
#include "kernels/cuda/gemm/multiply.cuh"
#include "kernels/cuda/gemm/pipeline.cuh"
#include "kernels/cuda/gemm/store_tile.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/sync.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace moebius::cuda {

// This warp is done with a stage, in every block whose copies may overwrite it.
template <class T>
__device__ __forceinline__ void ReleaseStage(uint64_t* empty) {
  const uint32_t lane = threadIdx.x % 32;
  __syncwarp();
  if constexpr (T::kCluster == 1) {
    if (lane == 0) {
      ptx::BarrierArrive(empty);
    }
  } else if (lane < T::kCluster) {
    ptx::BarrierArriveRemote(empty, lane);
  }
}

// The scales of one row of weight blocks: lane i holds the scale of block first + i of K.
__device__ __forceinline__ float LoadWeightScales(const float* scales, int first, int num_blocks) {
  const int block = first + static_cast<int>(threadIdx.x % 32);
  return block < num_blocks ? __ldg(scales + block) : 0.0f;
}

template <class T>
struct Consumer {
  const GroupedGemmParams& p;
  SharedLayout<T> shared;
  uint32_t rank;
  int warpgroup;
  RingPlace<T::kStages> ring;
  TileForm<T> form;  // of the tile at hand

  // First row of the instruction's left operand in this warpgroup's wave: tokens by the tile's
  // form; weights so that a warpgroup's rows are adjacent, under one scale.
  __device__ int RowOf(int wave) const {
    return T::kSwap ? (warpgroup * T::kWaves + wave) * 64 : form.RowOf(wave, warpgroup);
  }
  // How many of this warpgroup's waves have a row to compute.
  __device__ int ActiveWaves(const TilePlace& tile) const {
    if constexpr (T::kSwap) {
      return T::kWaves;
    }
    int waves = 0;
    while (waves < T::kWaves && tile.row + RowOf(waves) < tile.row_end) {
      ++waves;
    }
    return waves;
  }

  __device__ const float* WeightScaleRow(const TilePlace& tile) const {
    const int blocks = (p.n + 127) / 128;
    const TileForm<T> its = FormOf<T>(p, tile);
    const int row = its.WeightRow(tile, rank) + (T::kSwap ? RowOf(0) : its.ColumnsOf(warpgroup));
    return p.weight_scales +
           static_cast<int64_t>(SlotOf<T>(p, tile) * blocks + min(row / 128, blocks - 1)) *
               (p.k / 128) +
           FirstK<T>(p, tile) / 128;
  }

  // Descriptors of this warpgroup's part of the stage that the ring stands at.
  __device__ uint64_t Left(int wave) const {
    const uint8_t* tile = T::kSwap ? shared.Weights(ring.stage) : shared.Tokens(ring.stage, form);
    return ptx::TileDescriptor(tile) + RowOf(wave) * (128 / 16);
  }
  __device__ uint64_t Right() const {
    const uint8_t* tile = T::kSwap ? shared.Tokens(ring.stage, form) : shared.Weights(ring.stage);
    return ptx::TileDescriptor(tile) + form.ColumnsOf(warpgroup) * (128 / 16);
  }

  // Weight scales of one tile, handed out block after block of K: 32 in a warp's lanes, the next 32
  // on their way.
  struct WeightScales {
    const float* row;
    int num_blocks;
    float now;
    float next = 0.0f;
    __device__ float At(int block) {
      if (block % 32 == 0) {
        now = block == 0 ? now : next;
        next = LoadWeightScales(row, block + 32, num_blocks);
      }
      return __shfl_sync(0xffffffffu, now, block % 32);
    }
  };

  // Two warpgroups take turns on the tensor core: one multiplies while the other promotes.
  template <int kActive>
  __device__ void MultiplyFp8(float (&sums)[T::kWaves][T::kColumns / 2], int first_row,
                              WeightScales scales) {
    const int lane = threadIdx.x % 32;
    const int row = threadIdx.x % 128 / 32 * 16 + lane / 4;
    for (int block = 0; block < scales.num_blocks; ++block) {
      const float weight_scale = scales.At(block);
      ptx::BarrierWait(shared.Full() + ring.stage, ring.parity);
      const float* token_scales = shared.Scales(ring.stage) + first_row % 4;
#pragma unroll
      for (int wave = 0; wave < kActive; ++wave) {
        float d[T::kColumns / 2];
        ptx::WgmmaFence();
        IssueWave<T>(d, Left(wave), Right(), false);
        ptx::WgmmaCommit();
        if constexpr (T::kSwap) {
          ptx::WgmmaWait<0>();
          ptx::PinRegisters(d);
          PromoteColumns<T>(sums[wave], d, token_scales + 2 * (lane % 4), weight_scale);
        } else {
          const float low = token_scales[RowOf(wave) + row] * weight_scale;
          const float high = token_scales[RowOf(wave) + row + 8] * weight_scale;
          ptx::WgmmaWait<0>();
          ptx::PinRegisters(d);
          if (wave == kActive - 1) {
            ReleaseStage<T>(shared.Empty() + ring.stage);
          }
          PromoteRows<T>(sums[wave], d, low, high);
        }
      }
      if constexpr (T::kSwap) {
        ReleaseStage<T>(shared.Empty() + ring.stage);
      }
      ring.Advance();
    }
  }

  // With few columns the instruction's latency is most of a stage's time: each warpgroup keeps the
  // next stage's multiplication in flight while it promotes this one's.
  __device__ void MultiplyFp8Ahead(float (&sums)[T::kWaves][T::kColumns / 2], int first_row,
                                   WeightScales scales) {
    float even[T::kColumns / 2];
    float odd[T::kColumns / 2];
    const int last = scales.num_blocks - 1;
    int stage = Issue(even);
    int block = 0;
    for (; block + 1 < last; block += 2) {
      stage = Step(even, odd, stage, scales.At(block), first_row, sums[0]);
      stage = Step(odd, even, stage, scales.At(block + 1), first_row, sums[0]);
    }
    if (block < last) {
      stage = Step(even, odd, stage, scales.At(block), first_row, sums[0]);
      ptx::WgmmaWait<0>();
      Promote(odd, stage, scales.At(last), first_row, sums[0]);
    } else {
      ptx::WgmmaWait<0>();
      Promote(even, stage, scales.At(last), first_row, sums[0]);
    }
  }

  // Starts multiplying the stage that the ring stands at; returns it.
  __device__ __forceinline__ int Issue(float (&d)[T::kColumns / 2]) {
    const int stage = ring.stage;
    ptx::BarrierWait(shared.Full() + stage, ring.parity);
    ptx::WgmmaFence();
    IssueWave<T>(d, Left(0), Right(), false);
    ptx::WgmmaCommit();
    ring.Advance();
    return stage;
  }

  __device__ __forceinline__ void Promote(float (&d)[T::kColumns / 2], int stage,
                                          float weight_scale, int first_row,
                                          float (&sums)[T::kColumns / 2]) {
    ptx::PinRegisters(d);
    const float* scales = shared.Scales(stage) + first_row % 4;
    if constexpr (T::kSwap) {
      PromoteColumns<T>(sums, d, scales + 2 * (threadIdx.x % 4), weight_scale);
      ReleaseStage<T>(shared.Empty() + stage);
    } else {
      const int row = RowOf(0) + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
      const float low = scales[row] * weight_scale;
      const float high = scales[row + 8] * weight_scale;
      ReleaseStage<T>(shared.Empty() + stage);
      PromoteRows<T>(sums, d, low, high);
    }
  }

  // Starts the next stage into `next`, then promotes `stage` from `now`. Returns the next stage.
  __device__ __forceinline__ int Step(float (&now)[T::kColumns / 2], float (&next)[T::kColumns / 2],
                                      int stage, float weight_scale, int first_row,
                                      float (&sums)[T::kColumns / 2]) {
    const int next_stage = Issue(next);
    ptx::WgmmaWait<1>();
    Promote(now, stage, weight_scale, first_row, sums);
    return next_stage;
  }

  // The sums stay in the tensor core's accumulators; one stage is always in flight.
  template <int kActive>
  __device__ void MultiplyBf16(float (&sums)[T::kWaves][T::kColumns / 2]) {
    int previous = -1;
    for (int k = 0; k < PartK<T>(p); k += T::kElementsOfK) {
      ptx::BarrierWait(shared.Full() + ring.stage, ring.parity);
#pragma unroll
      for (int wave = 0; wave < kActive; ++wave) {
        ptx::PinRegisters(sums[wave]);
      }
      ptx::WgmmaFence();
#pragma unroll
      for (int wave = 0; wave < kActive; ++wave) {
        IssueWave<T>(sums[wave], Left(wave), Right(), true);
      }
      ptx::WgmmaCommit();
      if (previous >= 0) {
        ptx::WgmmaWait<1>();
        ReleaseStage<T>(shared.Empty() + previous);
      }
      previous = ring.stage;
      ring.Advance();
    }
    ptx::WgmmaWait<0>();
#pragma unroll
    for (int wave = 0; wave < kActive; ++wave) {
      ptx::PinRegisters(sums[wave]);
    }
    ReleaseStage<T>(shared.Empty() + previous);
  }

  template <int kActive>
  __device__ void MultiplyWaves(float (&sums)[T::kWaves][T::kColumns / 2], const TilePlace& tile,
                                const WeightScales& scales) {
    if constexpr (!T::kFp8) {
      MultiplyBf16<kActive>(sums);
    } else if constexpr (kActive == 1 && T::kAhead) {
      MultiplyFp8Ahead(sums, tile.row, scales);
    } else {
      MultiplyFp8<kActive>(sums, tile.row, scales);
    }
  }

  template <int kActive>
  __device__ void Store(const float (&sums)[T::kWaves][T::kColumns / 2], const TilePlace& tile) {
    const int warp = threadIdx.x / 32;
    uint8_t* staging = shared.Staging(warp);
    const int weight_row = form.WeightRow(tile, rank) + form.ColumnsOf(warpgroup);
#pragma unroll
    for (int wave = 0; wave < kActive; ++wave) {
      const int row = RowOf(wave) + warp % 4 * 16;
      if constexpr (T::kSwap) {
        StoreColumns<T::kColumns>(sums[wave], staging, p.out, tile.row, tile.row_end,
                                  weight_row + row, p.n);
      } else {
        StoreRows<T::kColumns>(sums[wave], staging, p.out, tile.row + row, tile.row_end, weight_row,
                               p.n);
      }
    }
  }

  // then: after the products, before they are stored. A branch as a whole: where its ends met, sums
  // that one of them does not have would take up registers.
  template <int kActive, typename Then>
  __device__ void Compute(const TilePlace& tile, const WeightScales& scales, const Then& then) {
    float sums[T::kWaves][T::kColumns / 2] = {};
    MultiplyWaves<kActive>(sums, tile, scales);
    then();
    if (AddOtherPart<T, kActive>(p, tile, sums)) Store<kActive>(sums, tile);
  }

  // Of one form, and only the waves that have rows.
  template <bool kWide, typename Then>
  __device__ void ComputeAs(const TilePlace& tile, const WeightScales& scales, const Then& then) {
    form = {kWide};  // so that it is a constant in all that follows
    if (T::kWaves > 1 && __all_sync(0xffffffffu, ActiveWaves(tile) <= 1)) {
      Compute<1>(tile, scales, then);
    } else {
      Compute<T::kWaves>(tile, scales, then);
    }
  }

  __device__ void Run(int first_tile, int tile_step) {
    TileWalk walk = WalkOf<T>(p);
    TilePlace tile;
    bool more = walk.Find(first_tile, &tile);
    const float* scales = nullptr;
    float first_scales = 0.0f;
    if (T::kFp8 && more) {
      scales = WeightScaleRow(tile);
      first_scales = LoadWeightScales(scales, 0, PartK<T>(p) / 128);
    }
    int index = first_tile;
    for (uint32_t num_tiles = 0; more; ++num_tiles) {
      const WeightScales of_tile = {scales, PartK<T>(p) / 128, first_scales};
      // The next tile's first scales are fetched while this tile is multiplied, or stored.
      TilePlace next = tile;
      const auto advance = [&](int next_index) {
        index = next_index;
        more = walk.Find(index, &next);
        if constexpr (T::kFp8) {
          if (more) scales = WeightScaleRow(next);
          first_scales = LoadWeightScales(scales, 0, PartK<T>(p) / 128);
        }
      };
      if constexpr (!T::kAsks) advance(index + tile_step);
      const auto then = [&] {
        if constexpr (T::kAsks) advance(shared.Next()[num_tiles % tuning::kNextTiles]);
      };
      // The same in all lanes; only votes, all lanes met, tell the compiler so, and let it keep
      // what follows in uniform registers.
      if constexpr (T::kWide) __syncwarp();
      if (T::kWide && __all_sync(0xffffffffu, FormOf<T>(p, tile).wide)) {
        ComputeAs<T::kWide>(tile, of_tile, then);
      } else {
        ComputeAs<false>(tile, of_tile, then);
      }
      tile = next;
    }
  }
};

}  // namespace moebius::cuda
