// The grouped GEMM kernel: persistent blocks, one producer warp that fills a ring of shared-memory
// stages through the copy engine, one or two consumer warpgroups that multiply. One skeleton for
// both formats and both orientations.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gemm/multiply.cuh"
#include "kernels/cuda/gemm/store_tile.cuh"
#include "kernels/cuda/gemm/tile_walk.cuh"
#include "kernels/cuda/gemm/traits.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/sync.cuh"
#include "kernels/cuda/ptx/tma.cuh"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace moebius::cuda {

struct GroupedGemmParams {
  CUtensorMap weights;     // [num_slots * n, k]
  CUtensorMap rows;        // [capacity, k]
  CUtensorMap row_scales;  // [k / 128, capacity], fp8 only
  const int32_t* offsets;
  const int32_t* slots;  // null: group g uses slot g
  const float* weight_scales;
  __nv_bfloat16* out;
  int num_groups;
  int num_slots;
  int n;
  int k;
  int width;
  bool stream;
};

// The dynamic shared memory of one block: tiles first (the swizzle wants 1024-byte alignment), then
// scales, staging and barriers.
template <class T>
struct SharedLayout {
  uint8_t* base;
  __device__ uint8_t* Weights(int stage) const { return base + stage * T::kWeightBytes; }
  __device__ uint8_t* Tokens(int stage) const {
    return base + T::kStages * T::kWeightBytes + stage * T::kTokenBytes;
  }
  __device__ float* Scales(int stage) const {
    return reinterpret_cast<float*>(base + T::kStages * (T::kWeightBytes + T::kTokenBytes) +
                                    stage * T::kScaleBytes);
  }
  __device__ uint8_t* Staging(int warp) const {
    return base + T::kStages * (T::kWeightBytes + T::kTokenBytes + T::kScaleBytes) +
           warp * tuning::StagingBytesPerWarp(T::kTile);
  }
  __device__ uint64_t* Full() const {
    return reinterpret_cast<uint64_t*>(base + tuning::SharedBytes(T::kFormat, T::kTile) -
                                       tuning::kMaxStages * 16);
  }
  __device__ uint64_t* Empty() const { return Full() + tuning::kMaxStages; }
};

// A place in the ring and the parity of the barrier phase that belongs to it.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <class T>
__device__ TileWalk WalkOf(const GroupedGemmParams& p) {
  constexpr int kRows = T::kTile.weight_rows * T::kCluster;
  return TileWalk(p.offsets, p.num_groups, (p.n + kRows - 1) / kRows, T::kTile.token_rows, p.width);
}

// First weight row, within its slot, of this block's part of a tile.
template <class T>
__device__ int WeightRow(const TilePlace& tile, uint32_t rank) {
  return (tile.weight_tile * T::kCluster + rank) * T::kTile.weight_rows;
}

__device__ inline int SlotOf(const GroupedGemmParams& p, int group) {
  return p.slots == nullptr ? group : __ldg(p.slots + group);
}

template <class T>
__device__ void Produce(const GroupedGemmParams& p, const SharedLayout<T>& shared, int first_tile,
                        int tile_step, uint32_t rank) {
  const bool elected = ptx::ElectOne();
  const uint64_t read_once = ptx::PolicyEvictFirst();
  TileWalk walk = WalkOf<T>(p);
  RingPlace<T::kStages> ring;
  TilePlace tile;
  for (int index = first_tile; walk.Find(index, &tile); index += tile_step) {
    const int weight_row = SlotOf(p, tile.group) * p.n + WeightRow<T>(tile, rank);
    if (elected) {
      for (int k = 0; k < p.k; k += T::kElementsOfK) {
        uint64_t* full = shared.Full() + ring.stage;
        ptx::BarrierWait(shared.Empty() + ring.stage, ring.parity ^ 1);
        ptx::BarrierArriveExpect(full, T::kArrivingBytes);
        if (p.stream) {
          ptx::LoadBox(shared.Weights(ring.stage), &p.weights, k, weight_row, full, read_once);
        } else {
          ptx::LoadBox(shared.Weights(ring.stage), &p.weights, k, weight_row, full);
        }
        if constexpr (T::kCluster == 1) {
          ptx::LoadBox(shared.Tokens(ring.stage), &p.rows, k, tile.row, full);
        } else {
          // Each block of the cluster fetches its share of the token rows for all of them.
          constexpr int kShare = T::kTile.token_rows / T::kCluster;
          ptx::LoadBoxMulticast(shared.Tokens(ring.stage) + rank * kShare * tuning::kStageBytesOfK,
                                &p.rows, k, tile.row + rank * kShare, full, (1 << T::kCluster) - 1);
        }
        if constexpr (T::kFp8) {
          // Boxes of whole 16 bytes at 16-byte places: the copy engine refuses others.
#pragma unroll
          for (int box = 0; box < T::kScaleBoxes; ++box) {
            constexpr int kRows = T::kTile.token_rows / T::kScaleBoxes;
            ptx::LoadBox(shared.Scales(ring.stage) + box * kRows, &p.row_scales,
                         tile.row / 4 * 4 + box * kRows, k / 128, full);
          }
        }
        ring.Advance();
      }
    }
    __syncwarp();
  }
}

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

  // Rows of the instruction's left operand that come before this warpgroup's.
  __device__ int FirstRow() const { return warpgroup * 64 * T::kWaves; }

  __device__ const float* WeightScaleRow(const TilePlace& tile) const {
    const int blocks = (p.n + 127) / 128;
    const int row = WeightRow<T>(tile, rank) + (T::kSwap ? FirstRow() : 0);
    return p.weight_scales +
           static_cast<int64_t>(SlotOf(p, tile.group) * blocks + min(row / 128, blocks - 1)) *
               (p.k / 128);
  }

  // Descriptors of this warpgroup's part of the stage that the ring stands at.
  __device__ uint64_t Left() const {
    const uint8_t* tile = T::kSwap ? shared.Weights(ring.stage) : shared.Tokens(ring.stage);
    return ptx::TileDescriptor(tile) + FirstRow() * (128 / 16);
  }
  __device__ uint64_t Right() const {
    return ptx::TileDescriptor(T::kSwap ? shared.Tokens(ring.stage) : shared.Weights(ring.stage));
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
  __device__ void MultiplyFp8(float (&sums)[T::kWaves][T::kColumns / 2], int first_row,
                              WeightScales scales) {
    const int lane = threadIdx.x % 32;
    const int row = FirstRow() + threadIdx.x % 128 / 32 * 16 + lane / 4;
    for (int block = 0; block < scales.num_blocks; ++block) {
      const float weight_scale = scales.At(block);
      ptx::BarrierWait(shared.Full() + ring.stage, ring.parity);
      const float* token_scales = shared.Scales(ring.stage) + first_row % 4;
#pragma unroll
      for (int wave = 0; wave < T::kWaves; ++wave) {
        float d[T::kColumns / 2];
        ptx::WgmmaFence();
        IssueWave<T>(d, Left() + wave * 64 * (128 / 16), Right(), false);
        ptx::WgmmaCommit();
        if constexpr (T::kSwap) {
          ptx::WgmmaWait<0>();
          ptx::PinRegisters(d);
          PromoteColumns<T>(sums[wave], d, token_scales + 2 * (lane % 4), weight_scale);
        } else {
          const float low = token_scales[row + wave * 64] * weight_scale;
          const float high = token_scales[row + wave * 64 + 8] * weight_scale;
          ptx::WgmmaWait<0>();
          ptx::PinRegisters(d);
          if (wave == T::kWaves - 1) {
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
    IssueWave<T>(d, Left(), Right(), false);
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
      const int row = FirstRow() + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
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
  __device__ void MultiplyBf16(float (&sums)[T::kWaves][T::kColumns / 2]) {
    int previous = -1;
    for (int k = 0; k < p.k; k += T::kElementsOfK) {
      ptx::BarrierWait(shared.Full() + ring.stage, ring.parity);
#pragma unroll
      for (int wave = 0; wave < T::kWaves; ++wave) {
        ptx::PinRegisters(sums[wave]);
      }
      ptx::WgmmaFence();
#pragma unroll
      for (int wave = 0; wave < T::kWaves; ++wave) {
        IssueWave<T>(sums[wave], Left() + wave * 64 * (128 / 16), Right(), true);
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
    for (int wave = 0; wave < T::kWaves; ++wave) {
      ptx::PinRegisters(sums[wave]);
    }
    ReleaseStage<T>(shared.Empty() + previous);
  }

  __device__ void Store(const float (&sums)[T::kWaves][T::kColumns / 2], const TilePlace& tile) {
    const int warp = threadIdx.x / 32;
    uint8_t* staging = shared.Staging(warp);
    const int weight_row = WeightRow<T>(tile, rank);
#pragma unroll
    for (int wave = 0; wave < T::kWaves; ++wave) {
      const int row = FirstRow() + wave * 64 + warp % 4 * 16;
      if constexpr (T::kSwap) {
        StoreColumns<T::kColumns>(sums[wave], staging, p.out, tile.row, tile.row_end,
                                  weight_row + row, p.n);
      } else {
        StoreRows<T::kColumns>(sums[wave], staging, p.out, tile.row + row, tile.row_end, weight_row,
                               p.n);
      }
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
      first_scales = LoadWeightScales(scales, 0, p.k / 128);
    }
    for (int index = first_tile; more; index += tile_step) {
      float sums[T::kWaves][T::kColumns / 2] = {};
      // The next tile's first scales are fetched while this tile is multiplied.
      TilePlace next = tile;
      more = walk.Find(index + tile_step, &next);
      if constexpr (T::kFp8) {
        const float* next_scales = more ? WeightScaleRow(next) : scales;
        const float next_first = LoadWeightScales(next_scales, 0, p.k / 128);
        const WeightScales of_tile = {scales, p.k / 128, first_scales};
        if constexpr (T::kAhead) {
          MultiplyFp8Ahead(sums, tile.row, of_tile);
        } else {
          MultiplyFp8(sums, tile.row, of_tile);
        }
        scales = next_scales;
        first_scales = next_first;
      } else {
        MultiplyBf16(sums);
      }
      Store(sums, tile);
      tile = next;
    }
  }
};

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    GroupedGemmKernel(const __grid_constant__ GroupedGemmParams p) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  const SharedLayout<T> shared{shared_bytes};
  const uint32_t rank = T::kCluster == 1 ? 0 : ptx::ClusterRank();
  if (threadIdx.x == 0) {
    ptx::PrefetchTensorMap(&p.weights);
    ptx::PrefetchTensorMap(&p.rows);
    if (T::kFp8) {
      ptx::PrefetchTensorMap(&p.row_scales);
    }
    for (int stage = 0; stage < T::kStages; ++stage) {
      ptx::BarrierInit(shared.Full() + stage, 1);
      ptx::BarrierInit(shared.Empty() + stage, T::kConsumers * 4 * T::kCluster);
    }
    ptx::BarrierInitFence();
  }
  if constexpr (T::kCluster == 1) {
    __syncthreads();
  } else {
    ptx::ClusterSync();
  }
  const int first_tile = blockIdx.x / T::kCluster;
  const int tile_step = gridDim.x / T::kCluster;
  if (threadIdx.x >= T::kConsumerThreads) {
    if constexpr (T::kMoveRegisters) {
      ptx::LowerRegisters<T::kProducerRegisters>();
    }
    if (threadIdx.x / 32 == T::kConsumerThreads / 32) {
      Produce<T>(p, shared, first_tile, tile_step, rank);
    }
  } else {
    if constexpr (T::kMoveRegisters) {
      ptx::RaiseRegisters<T::kConsumerRegisters>();
    }
    Consumer<T>{p, shared, rank, static_cast<int>(threadIdx.x / 128), {}}.Run(first_tile,
                                                                              tile_step);
  }
  if constexpr (T::kCluster > 1) {
    // No block leaves while another may still write to it or arrive at its barriers.
    ptx::ClusterSync();
  }
}

template <class Kernel>
int MaxActiveClusters(Kernel kernel, const cudaLaunchConfig_t& config) {
  int clusters = 0;
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess ? clusters : 0;
}

// Launches the kernel of one tile. Returns null or the CUDA error's text.
template <class T>
const char* LaunchGroupedGemm(const GroupedGemmParams& params, int num_blocks,
                              cudaStream_t stream) {
  constexpr int kSharedBytes = tuning::SharedBytes(T::kFormat, T::kTile);
  cudaError_t error = cudaFuncSetAttribute(
      GroupedGemmKernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) {
    return cudaGetErrorString(error);
  }
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {T::kCluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(num_blocks);
  config.blockDim = dim3(T::kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  if constexpr (T::kCluster > 1) {
    // Persistent blocks must all be resident: a cluster left over would run its share after all
    // others.
    static const int max_clusters = MaxActiveClusters(GroupedGemmKernel<T>, config);
    config.gridDim.x = std::max(std::min(num_blocks / T::kCluster, max_clusters), 1) * T::kCluster;
  }
  error = cudaLaunchKernelEx(&config, GroupedGemmKernel<T>, params);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace moebius::cuda
