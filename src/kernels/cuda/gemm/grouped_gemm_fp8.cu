#include "kernels/cuda/gemm/launch_table.h"

namespace moebius::cuda {

const char* LaunchFp8GroupedGemm(int tile_idx, const GroupedGemmParams& params, int num_blocks,
                                 cudaStream_t stream) {
  return LaunchFromTable<tuning::GemmFormat::kFp8Block>(
      tile_idx, params, num_blocks, stream,
      std::make_integer_sequence<int, tuning::kNumFp8Tiles>());
}

}  // namespace moebius::cuda
