// The compiled kernels of a format, one a tile of its table. Host code of .cu files; each format is
// compiled in a file of its own.
#pragma once

#include <utility>

#include "kernels/cuda/gemm/grouped_gemm_kernel.cuh"

namespace moebius::cuda {

const char* LaunchFp8GroupedGemm(int tile_idx, const GroupedGemmParams& params, int num_blocks,
                                 cudaStream_t stream);
const char* LaunchBf16GroupedGemm(int tile_idx, const GroupedGemmParams& params, int num_blocks,
                                  cudaStream_t stream);

template <tuning::GemmFormat kFormat, int... kIndices>
const char* LaunchFromTable(int tile_idx, const GroupedGemmParams& params, int num_blocks,
                            cudaStream_t stream, std::integer_sequence<int, kIndices...>) {
  using Launcher = const char* (*)(const GroupedGemmParams&, int, cudaStream_t);
  static constexpr Launcher kTable[] = {&LaunchGroupedGemm<GemmTraits<kFormat, kIndices>>...};
  return kTable[tile_idx](params, num_blocks, stream);
}

}  // namespace moebius::cuda
