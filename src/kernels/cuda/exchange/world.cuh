// Ranks for tests and the benchmark: each on a GPU of its own (peer access within this process), or
// several on one GPU, where their kernels are small enough to be resident together. Sharing memory
// between processes is not this file's.
#pragma once

#include <cuda_runtime.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/testing/slow.h"
#include "kernels/cuda/exchange/exchange.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::cuda::exchange::testing {

using moebius::kernels::cuda::testing::Device;
using moebius::kernels::cuda::testing::Expect;

// A limit of a kernel's waits, or of a test, in nanoseconds and in seconds.
inline uint64_t SlowNanoseconds(std::chrono::milliseconds time) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(moebius::testing::Slow(time)).count());
}
inline double SlowSeconds(std::chrono::milliseconds time) {
  return static_cast<double>(moebius::testing::Slow(time).count()) / 1e3;
}

inline void Good(const char* error, int line) {
  if (error == nullptr) return;
  std::printf("FAILED line %d: %s\n", line, error);
  std::exit(1);
}
#define LAUNCH_OK(call) ::moebius::cuda::exchange::testing::Good(call, __LINE__)

// Makes every device address every other; false if some pair cannot.
inline bool EnablePeers(const std::vector<int>& devices) {
  for (const int a : devices) {
    for (const int b : devices) {
      if (a == b) continue;
      int can = 0;
      CUDA_OK(cudaDeviceCanAccessPeer(&can, a, b));
      if (can == 0) return false;
      CUDA_OK(cudaSetDevice(a));
      const cudaError_t error = cudaDeviceEnablePeerAccess(b, 0);
      if (error == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
      } else {
        CUDA_OK(error);
      }
    }
  }
  return true;
}

// Streams, shared allocations, steps and host-mapped abort words of all ranks.
class World {
 public:
  struct Member {
    int device;
    cudaStream_t stream;
    std::byte* memory;
    uint32_t* step;
    uint32_t* host_abort;
  };

  World(const std::vector<int>& devices, size_t bytes) {
    for (const int device : devices) {
      Member m = {device, nullptr, nullptr, nullptr, nullptr};
      CUDA_OK(cudaSetDevice(device));
      CUDA_OK(cudaStreamCreateWithFlags(&m.stream, cudaStreamNonBlocking));
      CUDA_OK(cudaMalloc(&m.memory, bytes));
      CUDA_OK(cudaMemset(m.memory, 0, bytes));
      CUDA_OK(cudaMalloc(&m.step, sizeof(uint32_t)));
      CUDA_OK(cudaMemset(m.step, 0, sizeof(uint32_t)));
      CUDA_OK(cudaHostAlloc(&m.host_abort, sizeof(uint32_t), cudaHostAllocMapped));
      *m.host_abort = 0;
      CUDA_OK(cudaDeviceSynchronize());
      members_.push_back(m);
    }
  }
  World(const World&) = delete;
  ~World() {
    for (const Member& m : members_) {
      cudaSetDevice(m.device);
      cudaDeviceSynchronize();
    }
    for (const Member& m : members_) {
      cudaSetDevice(m.device);
      cudaStreamDestroy(m.stream);
      cudaFree(m.memory);
      cudaFree(m.step);
      cudaFreeHost(m.host_abort);
    }
  }

  int size() const { return static_cast<int>(members_.size()); }
  const Member& operator[](int rank) const { return members_[rank]; }
  void Select(int rank) const { CUDA_OK(cudaSetDevice(members_[rank].device)); }
  void Synchronize() const {
    for (const Member& m : members_) {
      CUDA_OK(cudaSetDevice(m.device));
      CUDA_OK(cudaStreamSynchronize(m.stream));
    }
  }
  template <class G>
  G MakeGroup(int rank) const {
    G group;
    if constexpr (requires { group.num_ranks; }) group.num_ranks = size();
    group.rank = rank;
    for (int r = 0; r < size(); ++r) group.bases[r] = members_[r].memory;
    group.host_abort = members_[rank].host_abort;
    return group;
  }
  Group MakeGroup(const Shape& shape, int rank) const {
    Group group = MakeGroup<Group>(rank);
    group.shape = shape;
    return group;
  }

 private:
  std::vector<Member> members_;
};

static __global__ void SleepKernel(uint32_t nanoseconds) {
  for (uint32_t slept = 0; slept < nanoseconds; slept += 1000) __nanosleep(1000);
}
// Holds the stream up for about this long.
inline void Sleep(cudaStream_t stream, uint32_t nanoseconds) {
  if (nanoseconds == 0) return;
  SleepKernel<<<1, 1, 0, stream>>>(nanoseconds);
  CUDA_OK(cudaGetLastError());
}

}  // namespace moebius::cuda::exchange::testing
