// The twin of cuda/rank_device.cc in a build without CUDA.
#include "rank/rank_device.h"

namespace moebius::rank {

Result<int> NumRankDevices() {
  return MakeError(ErrorCode::kUnsupported,
                   "--device is 'cuda', but this build has no CUDA: build with the preset cuda");
}

Result<std::unique_ptr<RankDevice>> OpenRankDevice(Links& /*links*/,
                                                   std::chrono::milliseconds /*wait_limit*/,
                                                   platform::ThreadPool& /*pool*/) {
  return MakeError(ErrorCode::kUnsupported,
                   "ranks on GPUs, but this build has no CUDA: build with the preset cuda");
}

}  // namespace moebius::rank
