// All-gather by peer loads. Pieces are cut into segments, dealt to blocks the same way on every
// rank: a block stages this rank's segments, raises its flag at every peer, waits for the same
// block's flags of the peers, and reads theirs. Staging and flags alternate between two sets: a
// rank that starts call n + 2 has finished n + 1, for which every peer had finished n; so what n
// read and polled is free.
#include <algorithm>

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr int kGatherThreads = 256;
constexpr int kGatherBlocks = 128;
constexpr int kSegment = kGatherThreads * 16;  // bytes

struct GatherSignals {
  uint64_t flags[2][kGatherBlocks][kMaxRanks];
  uint32_t abort;
  uint32_t calls;    // that are done
  uint32_t arrived;  // blocks of a call
  uint32_t unused[29];
};
constexpr int64_t kGatherStaging = AlignUp(sizeof(GatherSignals), 1024);

struct GatherParams {
  GatherGroup group;
  AllGather args;
};

__device__ __forceinline__ GatherSignals* GatherAt(std::byte* base) {
  return reinterpret_cast<GatherSignals*>(base);
}

template <typename Word>
__device__ __forceinline__ Word LoadWord(const std::byte* p) {
  if constexpr (sizeof(Word) == 16) {
    return LoadArrived(p);
  } else if constexpr (sizeof(Word) == 4) {
    return *reinterpret_cast<const volatile uint32_t*>(p);
  } else {
    return *reinterpret_cast<const volatile uint16_t*>(p);
  }
}

// This block's segments of a piece. Four of them are in flight together.
template <typename Word>
__device__ void CopySegments(const AllGather::Piece& piece, const std::byte* from,
                             int64_t from_stride, std::byte* to, int64_t to_stride) {
  constexpr int kInFlight = 4;
  const int row_segments = (piece.row_bytes + kSegment - 1) / kSegment;
  const int segments = piece.rows * row_segments;
  for (int first = blockIdx.x; first < segments; first += kInFlight * gridDim.x) {
    int64_t row[kInFlight];
    int begin[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int segment = first + u * gridDim.x;
      row[u] = segment / row_segments;
      begin[u] = segment < segments ? segment % row_segments * kSegment : piece.row_bytes;
    }
    for (int at = threadIdx.x * sizeof(Word); at < kSegment; at += kGatherThreads * sizeof(Word)) {
      Word words[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (begin[u] + at < piece.row_bytes) {
          words[u] = LoadWord<Word>(from + row[u] * from_stride + begin[u] + at);
        }
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (begin[u] + at < piece.row_bytes) {
          *reinterpret_cast<Word*>(to + row[u] * to_stride + begin[u] + at) = words[u];
        }
      }
    }
  }
}

// What nobody sent: an index of all ones is none.
__device__ void FillPiece(const AllGather::Piece& piece, std::byte* to, int64_t to_stride) {
  for (int row = blockIdx.x; row < piece.rows; row += gridDim.x) {
    for (int at = threadIdx.x * 2; at < piece.row_bytes; at += kGatherThreads * 2) {
      *reinterpret_cast<uint16_t*>(to + row * to_stride + at) = 0xffff;
    }
  }
}

// True in all threads when every peer's block of this number has staged its part.
__device__ bool RaiseAndWait(const GatherGroup& g, GatherSignals* own, uint32_t sequence) {
  const int set = sequence & 1;
  const int r = threadIdx.x;
  bool failed = false;
  if (r < g.num_ranks && r != g.rank) {
    StoreRelease(&GatherAt(g.bases[r])->flags[set][blockIdx.x][g.rank], FlagWord(sequence, 0));
    uint32_t rows = 0;
    const Waiter waiter = {
        &own->abort, g.host_abort, g.bases,           offsetof(GatherSignals, abort),
        g.num_ranks, g.rank,       g.wait_nanoseconds};
    failed = !WaitForFlag(waiter, &own->flags[set][blockIdx.x][r], sequence, Phase::kAllGather, r,
                          &rows);
  }
  return __syncthreads_or(failed) == 0;
}

template <typename Word>
__global__ void __launch_bounds__(kGatherThreads)
    AllGatherKernel(const __grid_constant__ GatherParams p) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (p.args.lets_next_in) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  const GatherGroup& g = p.group;
  const AllGather& args = p.args;
  auto* out = static_cast<std::byte*>(args.out);
  GatherSignals* own = GatherAt(g.bases[g.rank]);
  const uint32_t sequence = LoadRelaxed(&own->calls) + 1;
  const int64_t staging = kGatherStaging + (sequence & 1) * AlignUp(g.staging_bytes, int64_t{1024});
  // After an abort what is staged stays as it is.
  bool failed = __syncthreads_or(threadIdx.x == 0 && Aborted(&own->abort)) != 0;
  if (!failed) {
    const AllGather::Piece& piece = args.pieces[g.rank];
    const auto* mine = static_cast<const std::byte*>(args.mine);
    CopySegments<Word>(piece, mine, args.mine_stride, g.bases[g.rank] + staging, piece.row_bytes);
    if (mine != out + piece.offset) {
      CopySegments<Word>(piece, mine, args.mine_stride, out + piece.offset, args.out_stride);
    }
    __syncthreads();
    failed = !RaiseAndWait(g, own, sequence);
  }
  for (int i = 1; i < g.num_ranks; ++i) {
    const int r = (g.rank + i) % g.num_ranks;
    const AllGather::Piece& piece = args.pieces[r];
    if (failed) {
      FillPiece(piece, out + piece.offset, args.out_stride);
    } else {
      CopySegments<Word>(piece, g.bases[r] + staging, piece.row_bytes, out + piece.offset,
                         args.out_stride);
    }
  }
  if (LastToArrive(&own->arrived) && threadIdx.x == 0) own->calls = sequence;
}

const char* CheckGather(const GatherGroup& group, const AllGather& args) {
  if (group.num_ranks < 1 || group.num_ranks > kMaxRanks || group.rank < 0 ||
      group.rank >= group.num_ranks) {
    return "all-gather: 1 to 64 ranks with this rank among them";
  }
  for (int r = 0; r < group.num_ranks; ++r) {
    const AllGather::Piece& piece = args.pieces[r];
    if (group.bases[r] == nullptr) return "all-gather: every rank's allocation must be given";
    if (piece.rows < 0 || piece.row_bytes < 0 || piece.row_bytes % 2 != 0 ||
        int64_t{piece.rows} * piece.row_bytes > group.staging_bytes) {
      return "all-gather: pieces must be even and fit the staging memory";
    }
  }
  return nullptr;
}

// The widest word that everything is a multiple of.
int WordBytes(const GatherGroup& group, const AllGather& args) {
  uint64_t bits = reinterpret_cast<uintptr_t>(args.mine) | static_cast<uint64_t>(args.mine_stride) |
                  reinterpret_cast<uintptr_t>(args.out) | static_cast<uint64_t>(args.out_stride);
  for (int r = 0; r < group.num_ranks; ++r) {
    bits |= static_cast<uint64_t>(args.pieces[r].offset) |
            static_cast<uint64_t>(args.pieces[r].row_bytes);
  }
  return bits % 16 == 0 ? 16 : bits % 4 == 0 ? 4 : 2;
}

}  // namespace

size_t GatherBytes(int64_t staging_bytes) {
  return static_cast<size_t>(kGatherStaging + 2 * AlignUp(staging_bytes, 1024));
}

size_t GatherAbortOffset() { return offsetof(GatherSignals, abort); }

const char* LaunchAllGather(const GatherGroup& group, const AllGather& args, CUstream_st* stream) {
  if (const char* error = CheckGather(group, args)) return error;
  int64_t segments = 1;
  for (int r = 0; r < group.num_ranks; ++r) {
    const AllGather::Piece& piece = args.pieces[r];
    segments =
        std::max(segments, int64_t{piece.rows} * ((piece.row_bytes + kSegment - 1) / kSegment));
  }
  const int most = args.num_blocks > 0 ? std::min(args.num_blocks, kGatherBlocks) : kGatherBlocks;
  const int blocks = static_cast<int>(std::min<int64_t>(segments, most));
  const GatherParams params = {group, args};
  const int word = WordBytes(group, args);
  return Launch(word == 16  ? AllGatherKernel<uint4>
                : word == 4 ? AllGatherKernel<uint32_t>
                            : AllGatherKernel<uint16_t>,
                params, blocks, kGatherThreads, 0, args.lets_next_in, stream);
}

}  // namespace moebius::cuda::exchange
