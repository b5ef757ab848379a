// One-shot all-reduce by peer loads. Each block owns a chunk of the elements: it stages this rank's
// part, raises its flag at every peer, waits for the same block's flags of the peers, and reads
// their parts. Staging and flags alternate between two sets: a rank that starts call n + 2 has
// finished n + 1, for which every peer had finished n; so what n read and polled is free.
#include <algorithm>

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr int kReduceThreads = 256;
constexpr int kReduceBlocks = 128;

struct ReduceSignals {
  uint64_t flags[2][kReduceBlocks][kMaxRanks];
  uint32_t abort;
  uint32_t unused[31];
};
constexpr int64_t kStaging = AlignUp(sizeof(ReduceSignals), 1024);

struct ReduceParams {
  ReduceGroup group;
  Sequence sequence;
  AllReduce args;
};

__device__ __forceinline__ ReduceSignals* SignalsAt(std::byte* base) {
  return reinterpret_cast<ReduceSignals*>(base);
}

// kVectors: 16-byte vectors of a thread that are in flight together.
template <int kVectors>
__device__ __forceinline__ void Reduce(const ReduceParams& p, int64_t staging, int64_t begin,
                                       int64_t end) {
  for (int64_t base = begin + threadIdx.x; base < end; base += kReduceThreads * kVectors) {
    float sum[kVectors][8] = {};
#pragma unroll 4
    for (int r = 0; r < p.group.num_ranks; ++r) {
      const std::byte* from = p.group.bases[r] + staging;
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        const int64_t i = base + u * kReduceThreads;
        if (i < end) AddScaled(sum[u], 1.0f, LoadArrived(from + i * 16));
      }
    }
#pragma unroll
    for (int u = 0; u < kVectors; ++u) {
      const int64_t i = base + u * kReduceThreads;
      if (i < end) static_cast<uint4*>(p.args.out)[i] = Pack(sum[u]);
    }
  }
}

__global__ void __launch_bounds__(kReduceThreads)
    AllReduceKernel(const __grid_constant__ ReduceParams p) {
  JoinStream();
  const ReduceGroup& g = p.group;
  const uint32_t sequence = SequenceNumber(p.sequence);
  const int set = sequence & 1;
  const int64_t staging = kStaging + set * AlignUp(g.max_elements * 2, 1024);
  const int64_t vectors = p.args.elements / 8;
  const int64_t chunk = (vectors + gridDim.x - 1) / gridDim.x;
  const int64_t begin = min(blockIdx.x * chunk, vectors);
  const int64_t end = min(begin + chunk, vectors);
  ReduceSignals* own = SignalsAt(g.bases[g.rank]);
  // After an abort the staged rows stay as they are.
  if (__syncthreads_or(threadIdx.x == 0 && Aborted(&own->abort))) return;
  auto* stage = reinterpret_cast<uint4*>(g.bases[g.rank] + staging);
  for (int64_t i = begin + threadIdx.x; i < end; i += kReduceThreads) {
    stage[i] = static_cast<const uint4*>(p.args.in)[i];
  }
  __syncthreads();
  bool failed = false;
  const int r = threadIdx.x;
  if (r < g.num_ranks && r != g.rank) {
    StoreRelease(&SignalsAt(g.bases[r])->flags[set][blockIdx.x][g.rank], FlagWord(sequence, 0));
    uint32_t rows = 0;
    const Waiter waiter = {
        &own->abort, g.host_abort, g.bases,           offsetof(ReduceSignals, abort),
        g.num_ranks, g.rank,       g.wait_nanoseconds};
    failed = !WaitForFlag(waiter, &own->flags[set][blockIdx.x][r], sequence, Phase::kAllReduce, r,
                          &rows);
  }
  if (__syncthreads_or(failed)) return;
  if (end - begin > kReduceThreads) {
    Reduce<4>(p, staging, begin, end);
  } else {
    Reduce<1>(p, staging, begin, end);
  }
}

}  // namespace

size_t ReduceBytes(int64_t max_elements) {
  return static_cast<size_t>(kStaging + 2 * AlignUp(max_elements * 2, 1024));
}

const char* LaunchAllReduce(const ReduceGroup& group, const Sequence& sequence,
                            const AllReduce& args, CUstream_st* stream) {
  if (group.num_ranks < 1 || group.num_ranks > kMaxRanks || group.rank < 0 ||
      group.rank >= group.num_ranks || sequence.step == nullptr) {
    return "all-reduce: 1 to 64 ranks with this rank among them, and the step's device memory";
  }
  if (args.elements < 0 || args.elements % 8 != 0 || args.elements > group.max_elements) {
    return "all-reduce: elements must be a multiple of 8, at most max_elements";
  }
  for (int r = 0; r < group.num_ranks; ++r) {
    if (group.bases[r] == nullptr) return "all-reduce: every rank's allocation must be given";
  }
  if (reinterpret_cast<uintptr_t>(args.in) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(args.out) % 16 != 0) {
    return "all-reduce: in and out must be 16-byte aligned";
  }
  // All ranks take part in every call, also in empty ones: their sets alternate together.
  const int64_t vectors = args.elements / 8;
  const int most = args.num_blocks > 0 ? std::min(args.num_blocks, kReduceBlocks) : kReduceBlocks;
  const int blocks = static_cast<int>(
      std::clamp<int64_t>((vectors + kReduceThreads - 1) / kReduceThreads, 1, most));
  const ReduceParams params = {group, sequence, args};
  return Launch(AllReduceKernel, params, blocks, kReduceThreads, 0, args.early_launch, stream);
}

}  // namespace moebius::cuda::exchange
