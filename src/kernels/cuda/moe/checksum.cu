#include "kernels/cuda/moe/checksum.h"

#include <cuda_runtime.h>

namespace moebius::kernels::cuda {
namespace {

constexpr int kChecksumThreads = 256;
constexpr unsigned kMostChecksumBlocks = 16;
constexpr int kChecksumLoads = 8;  // words that a thread has under way: a peer's come slowly

__global__ void __launch_bounds__(kChecksumThreads)
    ChecksumKernel(const std::byte* bytes, uint64_t num_bytes, uint64_t* sum) {
  const auto* const words = reinterpret_cast<const unsigned long long*>(bytes);
  const uint64_t num_words = num_bytes / sizeof(uint64_t);
  const uint64_t threads = uint64_t{gridDim.x} * blockDim.x;
  const uint64_t first = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint64_t own = 0;
  for (uint64_t begin = first; begin < num_words; begin += kChecksumLoads * threads) {
    uint64_t held[kChecksumLoads];
#pragma unroll
    for (int i = 0; i < kChecksumLoads; ++i) {
      const uint64_t at = begin + i * threads;
      held[i] = at < num_words ? __ldcs(words + at) : 0;
    }
#pragma unroll
    for (int i = 0; i < kChecksumLoads; ++i) {
      const uint64_t at = begin + i * threads;
      if (at < num_words) own += ChecksumPart(at, held[i]);
    }
  }
  if (first == 0 && num_bytes % sizeof(uint64_t) != 0) {
    uint64_t last = 0;
    for (uint64_t b = num_words * sizeof(uint64_t); b < num_bytes; ++b) {
      last |= static_cast<uint64_t>(bytes[b]) << 8 * (b % sizeof(uint64_t));
    }
    own += ChecksumPart(num_words, last);
  }
  for (int step = 16; step > 0; step /= 2) own += __shfl_xor_sync(~0u, own, step);
  if (threadIdx.x % 32 == 0) atomicAdd(reinterpret_cast<unsigned long long*>(sum), own);
}

}  // namespace

int LaunchChecksum(const std::byte* bytes, size_t num_bytes, uint64_t* sum, CUstream_st* stream) {
  if (reinterpret_cast<uintptr_t>(bytes) % sizeof(uint64_t) != 0) return cudaErrorInvalidValue;
  const size_t of_block = sizeof(uint64_t) * kChecksumThreads * kChecksumLoads;
  const size_t blocks = (num_bytes + of_block - 1) / of_block;
  const auto grid =
      static_cast<unsigned>(blocks < kMostChecksumBlocks ? blocks : kMostChecksumBlocks);
  if (grid == 0) return cudaSuccess;
  ChecksumKernel<<<grid, kChecksumThreads, 0, stream>>>(bytes, num_bytes, sum);
  return cudaGetLastError();
}

}  // namespace moebius::kernels::cuda
