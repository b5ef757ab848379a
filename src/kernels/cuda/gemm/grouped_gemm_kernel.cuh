// The grouped GEMM kernel: persistent blocks, one producer warp that fills a ring of shared-memory
// stages through the copy engine, one to three consumer warpgroups that multiply. One skeleton for
// both formats and both orientations.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gemm/consumer.cuh"
#include "kernels/cuda/gemm/next_tile.cuh"
#include "kernels/cuda/gemm/pipeline.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/sync.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace moebius::cuda {

template <class T>
__device__ void Produce(const GroupedGemmParams& p, const SharedLayout<T>& shared, int first_tile,
                        int tile_step, uint32_t rank) {
  const bool elected = ptx::ElectOne();
  const uint64_t read_once = ptx::PolicyEvictFirst();
  TileWalk walk = WalkOf<T>(p);
  const int loader = __ffs(__ballot_sync(0xffffffffu, elected)) - 1;
  NextTile<T> next(p, shared, rank, tile_step);
  RingPlace<T::kStages> ring;
  TilePlace tile;
  for (int index = first_tile; walk.Find(index, &tile);) {
    const TileForm<T> form = FormOf<T>(p, tile);
    const int weight_row = SlotOf<T>(p, tile) * p.n + form.WeightRow(tile, rank);
    const int first_k = FirstK<T>(p, tile);
    int next_index = index + tile_step;
    if (elected) {
      for (int k = first_k, step = 0; k < first_k + PartK<T>(p); k += T::kElementsOfK, ++step) {
        uint64_t* full = shared.Full() + ring.stage;
        ptx::BarrierWait(shared.Empty() + ring.stage, ring.parity ^ 1);
        ptx::BarrierArriveExpect(full, T::kArrivingBytes + (T::kAsks ? next.Bytes(step) : 0));
        if constexpr (T::kAsks) next.Advance(step, index, ring);
        for (int box = 0; box < form.WeightBoxes(); ++box) {
          uint8_t* to = shared.Weights(ring.stage) + box * T::kWeightBytes;
          const int row = weight_row + box * T::kTile.weight_rows;
          if (p.stream) {
            ptx::LoadBox(to, &p.weights, k, row, full, read_once);
          } else {
            ptx::LoadBox(to, &p.weights, k, row, full);
          }
        }
        uint8_t* tokens = shared.Tokens(ring.stage, form);
        if constexpr (T::kCluster == 1) {
          ptx::LoadBox(tokens, &p.rows, k, tile.row, full);
        } else if (!form.wide) {
          // Each block of the cluster fetches its share of the token rows for all of them.
          constexpr int kShare = T::kTile.token_rows / T::kCluster;
          ptx::LoadBoxMulticast(tokens + rank * kShare * tuning::kStageBytesOfK, &p.rows, k,
                                tile.row + rank * kShare, full, (1 << T::kCluster) - 1);
        } else if (static_cast<uint32_t>(step) % T::kCluster == rank) {
          // One share is all: the blocks take turns.
          ptx::LoadBoxMulticast(tokens, &p.rows, k, tile.row, full, (1 << T::kCluster) - 1);
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
      if constexpr (T::kAsks) next_index = next.Take();
    }
    index = __shfl_sync(0xffffffffu, next_index, loader);
  }
  if (T::kAsks && elected) next.End(walk.num_tiles());
}

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
  AwaitEarlier();
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
    const int warpgroup = ptx::WarpUniform(threadIdx.x / 128);
    Consumer<T>{p, shared, rank, warpgroup, {}, {}}.Run(first_tile, tile_step);
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
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {T::kCluster, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(num_blocks);
  config.blockDim = dim3(T::kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
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
