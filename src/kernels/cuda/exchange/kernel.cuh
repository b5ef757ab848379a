// What the four halves share: a rank's view with its layout, the rows that arrived, and launching.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/exchange/signals.cuh"

namespace moebius::cuda::exchange {

// Blocks of the latency kernels serve one token at a time, warps of the throughput kernels each
// their own.
constexpr int kLatencyThreads = 512;
constexpr int kThroughputThreads = 1024;

enum Counter { kDispatchCounter = 0, kCombineCounter = 1 };

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
  __device__ int32_t* counts(int to, int from) const {
    return reinterpret_cast<int32_t*>(group.bases[to] + layout.counts) +
           from * group.shape.slots_per_rank;
  }
  __device__ std::byte* result(int home, int64_t index) const {
    return group.bases[home] + layout.results + index * layout.result_stride;
  }
  template <class T>
  __device__ T* own_at(int64_t offset) const {
    return reinterpret_cast<T*>(own() + offset);
  }
  __device__ int num_tokens(const int32_t* count) const {
    return min(max(static_cast<int>(LoadRelaxed(count)), 0), group.shape.max_tokens);
  }
};

// True, in all threads, when the group is aborted.
__device__ __forceinline__ bool BlockAborted(const Endpoint& e) {
  return __syncthreads_or(threadIdx.x == 0 && Aborted(&e.signals()->abort)) != 0;
}

// Threads that serve one row together: a warp, or the whole block.
template <int kThreads, int kTeam>
struct Team {
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

// The (source, position) rows of a call as one list, from the row counts of the sources.
struct Arrived {
  int first[kMaxRanks + 1];

  // One warp, after `first[r + 1]` holds the rows of rank r.
  __device__ void Sum(int num_ranks) {
    const int lane = threadIdx.x % 32;
    int carry = 0;
    if (lane == 0) first[0] = 0;
    for (int begin = 0; begin < num_ranks; begin += 32) {
      const int r = begin + lane;
      int sum = r < num_ranks ? first[r + 1] : 0;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
      }
      if (r < num_ranks) first[r + 1] = carry + sum;
      carry += __shfl_sync(~0u, sum, 31);
    }
  }
  __device__ int Source(int item) const {
    int source = 0;
    while (first[source + 1] <= item) ++source;
    return source;
  }
};

// Raises this rank's flag at every rank, by the block that arrives last; not after an abort, which
// leaves the regions as they are.
__device__ __forceinline__ void FlagAll(const Endpoint& e, Counter counter, uint32_t sequence,
                                        bool dispatch) {
  TestDelay(e.group.test_delay, sequence, 3);
  if (!LastToArrive(&e.signals()->arrived[counter])) return;
  const int r = threadIdx.x;
  if (r >= e.group.shape.num_ranks || Aborted(&e.signals()->abort)) return;
  Signals* peer = SignalsOf(e.group.bases[r]);
  if (dispatch) {
    StoreRelease(&peer->dispatch[e.group.rank],
                 FlagWord(sequence, LoadRelaxed(&e.signals()->sent[r])));
  } else {
    StoreRelease(&peer->combine[e.group.rank],
                 FlagWord(sequence, FlagRows(LoadAcquire(&e.signals()->dispatch[r]))));
  }
}

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
inline int Blocks(const Grid& grid) {
  return grid.num_blocks > 0 ? grid.num_blocks : DefaultBlocks(grid.mode);
}

}  // namespace moebius::cuda::exchange
