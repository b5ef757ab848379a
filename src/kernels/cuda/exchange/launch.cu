// What every launch checks, and the smallest kernel.
#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr int kThroughputBlocks = 24;

__global__ void AdvanceStepKernel(uint32_t* step) {
  JoinStream();
  *step += 1;
}

}  // namespace

int DefaultBlocks(Mode mode) {
  if (mode == Mode::kThroughput) return kThroughputBlocks;
  int device = 0;
  int num_sms = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return kThroughputBlocks;
  }
  return num_sms * BlocksPerMultiprocessor(kLatencyThreads);
}

const char* CheckGroup(const Group& group, const Sequence& sequence, const Grid& grid) {
  const Shape& s = group.shape;
  if (s.num_ranks < 1 || s.num_ranks > kMaxRanks || group.rank < 0 || group.rank >= s.num_ranks) {
    return "exchange: 1 to 64 ranks, and this rank among them";
  }
  if (s.slots_per_rank < 1 || s.num_slots() > kMaxSlots) {
    return "exchange: 1 to 1024 slots over all ranks";
  }
  if (s.top_k < 1 || s.top_k > kMaxTopK || s.max_tokens < 1 || s.max_tokens > kMaxTokens) {
    return "exchange: top_k must be 1 to 16, max_tokens 1 to 2^20";
  }
  const int unit = s.format == RowFormat::kFp8 ? 128 : s.format == RowFormat::kF32 ? 4 : 8;
  if (s.hidden < unit || s.hidden % unit != 0 || s.hidden > kMaxHidden) {
    return "exchange: hidden must be whole 16 bytes (fp8: a multiple of 128), at most 16384";
  }
  for (int r = 0; r < s.num_ranks; ++r) {
    if (group.bases[r] == nullptr || reinterpret_cast<uintptr_t>(group.bases[r]) % 128 != 0) {
      return "exchange: every rank's allocation must be given, 128-byte aligned";
    }
  }
  if (sequence.step == nullptr || grid.num_blocks < 0) {
    return "exchange: the step's device memory must be given, num_blocks not negative";
  }
  return nullptr;
}

const char* LaunchAdvanceStep(uint32_t* step, CUstream_st* stream) {
  AdvanceStepKernel<<<1, 1, 0, stream>>>(step);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace moebius::cuda::exchange
