// What the four halves share: a rank's view with its layout, teams of threads, arithmetic on rows,
// and launching.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/exchange/signals.cuh"

namespace moebius::cuda::exchange {

// Blocks of the latency kernels serve one token at a time, warps of the throughput kernels each
// their own.
constexpr int kLatencyThreads = 512;
constexpr int kThroughputThreads = 1024;
constexpr int BlocksPerMultiprocessor(int threads) { return threads == kLatencyThreads ? 2 : 1; }

struct Endpoint {
  Group group;
  Layout layout;
  Sequence sequence;

  __device__ std::byte* own() const { return group.bases[group.rank]; }
  __device__ Signals* signals() const { return SignalsOf(own()); }
  __device__ Waiter waiter() const {
    return {&signals()->abort,        group.host_abort,      group.bases,
            offsetof(Signals, abort), group.shape.num_ranks, group.rank,
            group.wait_nanoseconds};
  }
  // Row `position` of the region that rank `to` keeps for rank `from`.
  __device__ std::byte* row(int to, int from, int64_t position) const {
    return group.bases[to] + layout.rows +
           (int64_t{from} * group.shape.max_tokens + position) * layout.row_stride;
  }
  __device__ uint32_t* meta(int to, int from, int64_t position) const {
    return reinterpret_cast<uint32_t*>(group.bases[to] + layout.meta +
                                       (int64_t{from} * group.shape.max_tokens + position) *
                                           layout.meta_stride);
  }
  __device__ uint64_t* counts(int to, int from) const {
    return reinterpret_cast<uint64_t*>(group.bases[to] + layout.counts) +
           from * (1 + group.shape.slots_per_rank);
  }
  __device__ uint64_t* flag(int to, int from, int64_t token) const {
    return reinterpret_cast<uint64_t*>(group.bases[to] + layout.flags) +
           int64_t{from} * group.shape.max_tokens + token;
  }
  __device__ std::byte* result(int home, int64_t index) const {
    return group.bases[home] + layout.results + index * layout.result_stride;
  }
  __device__ uint64_t* result_flag(int home, int owner, int64_t position) const {
    return reinterpret_cast<uint64_t*>(group.bases[home] + layout.result_flags) +
           int64_t{owner} * group.shape.max_tokens + position;
  }
  __device__ uint32_t* arrival(int source, int64_t token) const {
    return own_at<uint32_t>(layout.arrivals + (int64_t{source} * group.shape.max_tokens + token) *
                                                  layout.arrival_stride);
  }
  template <class T>
  __device__ T* own_at(int64_t offset) const {
    return reinterpret_cast<T*>(own() + offset);
  }
  __device__ int num_tokens(const int32_t* count) const {
    return min(max(static_cast<int>(LoadRelaxed(count)), 0), group.shape.max_tokens);
  }
};

// Threads that serve one row together: a warp, or the whole block.
template <int kThreads, int kTeam>
struct Team {
  static constexpr int kSize = kTeam;
  static constexpr int kTeams = kThreads / kTeam;
  static __device__ __forceinline__ int Index() { return threadIdx.x / kTeam; }
  static __device__ __forceinline__ int Lane() { return threadIdx.x % kTeam; }
  static __device__ __forceinline__ void Sync() {
    if constexpr (kTeam == kThreads) {
      __syncthreads();
    } else {
      static_assert(kTeam == 32);
      __syncwarp();
    }
  }
};

// Eight bf16 values of 16 bytes.
__device__ __forceinline__ void Unpack(const uint4& v, float (&x)[8]) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ uint4 Pack(const float (&x)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ __forceinline__ void AddScaled(float (&sum)[8], float weight, const uint4& v) {
  float x[8];
  Unpack(v, x);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum[i] = fmaf(weight, x[i], sum[i]);
}

// Four float32 values likewise.
__device__ __forceinline__ void AddScaled(float (&sum)[4], float weight, const uint4& v) {
  sum[0] = fmaf(weight, __uint_as_float(v.x), sum[0]);
  sum[1] = fmaf(weight, __uint_as_float(v.y), sum[1]);
  sum[2] = fmaf(weight, __uint_as_float(v.z), sum[2]);
  sum[3] = fmaf(weight, __uint_as_float(v.w), sum[3]);
}
__device__ __forceinline__ uint4 Pack(const float (&x)[4]) {
  return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                    __float_as_uint(x[3]));
}

// Null, or why the group cannot be served.
const char* CheckGroup(const Group& group, const Sequence& sequence, const Grid& grid);

inline Endpoint MakeEndpoint(const Group& group, const Sequence& sequence) {
  return {group, MakeLayout(group.shape), sequence};
}

template <class Args>
const char* Launch(void (*kernel)(Args), const Args& args, int blocks, int threads,
                   size_t shared_bytes, bool early, CUstream_st* stream) {
  if (shared_bytes > 0) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return cudaGetErrorString(error);
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, args);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline int Threads(Mode mode) {
  return mode == Mode::kLatency ? kLatencyThreads : kThroughputThreads;
}
// Blocks for so many rows, at most those of the grid.
inline int Blocks(const Grid& grid, int64_t rows) {
  const int most = grid.num_blocks > 0 ? grid.num_blocks : DefaultBlocks(grid.mode);
  const int64_t teams = grid.mode == Mode::kLatency ? 1 : kThroughputThreads / 32;
  return static_cast<int>(std::clamp<int64_t>((rows + teams - 1) / teams, 1, most));
}
inline int64_t MostTokens(const Shape& shape, const Grid& grid) {
  return grid.most_tokens > 0 ? std::min(grid.most_tokens, shape.max_tokens) : shape.max_tokens;
}

}  // namespace moebius::cuda::exchange
