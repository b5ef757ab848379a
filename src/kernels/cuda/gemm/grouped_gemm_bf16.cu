#include "kernels/cuda/gemm/launch_table.h"

namespace moebius::cuda {

const char* LaunchBf16GroupedGemm(int tile_idx, const GroupedGemmParams& params, int num_blocks,
                                  cudaStream_t stream) {
  return LaunchFromTable<tuning::GemmFormat::kBf16>(
      tile_idx, params, num_blocks, stream,
      std::make_integer_sequence<int, tuning::kNumBf16Tiles>());
}

}  // namespace moebius::cuda
