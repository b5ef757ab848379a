// Sums over ranks by peer loads. A block is one end of a channel whose other ends are the peers'
// blocks of its number: it stages its rank's next chunk in its own memory, raises a flag at every
// peer, adds up the chunk before out of all ranks' memory, and waits for the peers' flags. So any
// size goes through a few chunks a channel, and chunks are read while the next ones are staged.
//
// The data is cut into parts, and a chunk has a piece of each. One part: every rank adds up all of
// it; that takes the fewest waits. A part a rank: each adds up its own alone and, for an
// all-reduce, leaves the sum where it had staged its addend, where peers fetch it; that moves the
// fewest bytes.
//
// Step s of a channel, counted over all calls, stages into slot s % 4, where step s - 4 did. Nobody
// reads that any more: this rank has waited for the peers' flags of step s - 1, and before a peer
// raises that one it has added up (in step s - 3) and fetched (in step s - 2) what s - 4 staged. So
// flags are free again too, and their numbers may run over.
#include <algorithm>
#include <bit>

#include "kernels/cuda/exchange/kernel.cuh"
#include "kernels/cuda/exchange/part.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr int kReduceThreads = 256;
constexpr int kReduceBlocks = 256;  // two a multiprocessor
constexpr int kThreadVectors = 4;   // of 16 bytes, in flight together
constexpr int kChunkVectors = kReduceThreads * kThreadVectors;
constexpr int kSlots = 4;

// At the beginning of a rank's channels; the slots follow, those of a channel together.
struct ChannelSignals {
  uint64_t flags[kSlots][kReduceBlocks][kMaxRanks];  // by rank: it has staged this step's chunk
  uint32_t steps[kReduceBlocks];                     // that this rank has done
};
constexpr int64_t kFirstSlot = AlignUp(sizeof(ChannelSignals), 1024);
constexpr int64_t kSlotBytes = int64_t{kChunkVectors} * 16;

struct ReduceParams {
  ReduceGroup group;
  Reduction args;
  int64_t begin[kMaxRanks + 1];  // of each part, in elements
  int64_t out_begin;             // the element that comes first in `out`
  int64_t num_chunks;
  int num_parts;  // 1, or as many as ranks
  int log_piece;  // of the vectors of a piece
  bool fetches;
  Phase phase;
};

__device__ __forceinline__ ChannelSignals* ChannelsOf(const ReduceGroup& g, int rank) {
  return reinterpret_cast<ChannelSignals*>(g.bases[rank] + g.channels_offset);
}

// Of what this channel stages in a step, in any rank's allocation.
__device__ __forceinline__ int64_t SlotOffset(const ReduceGroup& g, uint32_t step) {
  return g.channels_offset + kFirstSlot +
         (int64_t{blockIdx.x} * kSlots + step % kSlots) * kSlotBytes;
}

template <typename F>
__device__ __forceinline__ Part<F> InputPart(const ReduceParams& p, int part) {
  auto* in = static_cast<typename F::Word*>(const_cast<void*>(p.args.in));
  return {in + p.begin[part], p.begin[part + 1] - p.begin[part]};
}
template <typename F>
__device__ __forceinline__ Part<F> OutputPart(const ReduceParams& p, int part) {
  auto* out = static_cast<typename F::Word*>(p.args.out);
  return {out + (p.begin[part] - p.out_begin), p.begin[part + 1] - p.begin[part]};
}

// Vector i of a chunk is vector `place` of `part`.
struct ChunkPlace {
  int part;
  int64_t place;
};
__device__ __forceinline__ ChunkPlace PlaceOf(const ReduceParams& p, int64_t chunk, int i) {
  return {i >> p.log_piece, (chunk << p.log_piece) + (i & ((1 << p.log_piece) - 1))};
}

template <typename F>
__device__ __forceinline__ void Stage(const ReduceParams& p, int64_t chunk, std::byte* slot) {
  uint4 v[kThreadVectors] = {};
  bool has[kThreadVectors];
#pragma unroll
  for (int u = 0; u < kThreadVectors; ++u) {
    const ChunkPlace at = PlaceOf(p, chunk, threadIdx.x + u * kReduceThreads);
    has[u] = at.part < p.num_parts && InputPart<F>(p, at.part).Has(at.place);
    if (has[u]) v[u] = InputPart<F>(p, at.part).Load(at.place);
  }
#pragma unroll
  for (int u = 0; u < kThreadVectors; ++u) {
    if (has[u]) reinterpret_cast<uint4*>(slot)[threadIdx.x + u * kReduceThreads] = v[u];
  }
}

// Adds up this rank's piece, of at most kVectors a thread.
template <typename F, int kVectors>
__device__ __forceinline__ void SumPiece(const ReduceParams& p, int64_t chunk, int64_t slot) {
  constexpr int kInFlight = 8 / kVectors;
  const ReduceGroup& g = p.group;
  const int part = p.num_parts == 1 ? 0 : g.rank;
  const int64_t piece = slot + (int64_t{part} << p.log_piece) * 16;
  const Part<F> out = OutputPart<F>(p, part);
  float sum[kVectors][F::kColumns] = {};
  bool has[kVectors];
#pragma unroll
  for (int u = 0; u < kVectors; ++u) {
    const int i = threadIdx.x + u * kReduceThreads;
    has[u] = i >> p.log_piece == 0 && out.Has((chunk << p.log_piece) + i);
  }
  for (int r = 0; r < g.num_ranks; r += kInFlight) {
    uint4 v[kInFlight][kVectors] = {};  // zeros change no sum
#pragma unroll
    for (int t = 0; t < kInFlight; ++t) {
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        if (r + t < g.num_ranks && has[u]) {
          v[t][u] = LoadArrived(g.bases[r + t] + piece + (threadIdx.x + u * kReduceThreads) * 16);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kInFlight; ++t) {
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        AddScaled(sum[u], 1.0f, v[t][u]);
      }
    }
  }
#pragma unroll
  for (int u = 0; u < kVectors; ++u) {
    if (!has[u]) continue;
    const int i = threadIdx.x + u * kReduceThreads;
    const uint4 rounded = Pack(sum[u]);
    out.Store((chunk << p.log_piece) + i, rounded);
    if (p.fetches) reinterpret_cast<uint4*>(g.bases[g.rank] + piece)[i] = rounded;
  }
}

template <typename F>
__device__ __forceinline__ void Sum(const ReduceParams& p, int64_t chunk, int64_t slot) {
  const int vectors = 1 << p.log_piece;
  if (vectors > 2 * kReduceThreads) {
    SumPiece<F, 4>(p, chunk, slot);
  } else if (vectors > kReduceThreads) {
    SumPiece<F, 2>(p, chunk, slot);
  } else {
    SumPiece<F, 1>(p, chunk, slot);
  }
}

// The peers' pieces, from where they have left their sums.
template <typename F>
__device__ __forceinline__ void Fetch(const ReduceParams& p, int64_t chunk, int64_t slot) {
  uint4 v[kThreadVectors] = {};
  bool has[kThreadVectors];
#pragma unroll
  for (int u = 0; u < kThreadVectors; ++u) {
    const int i = threadIdx.x + u * kReduceThreads;
    const ChunkPlace at = PlaceOf(p, chunk, i);
    has[u] =
        at.part < p.num_parts && at.part != p.group.rank && OutputPart<F>(p, at.part).Has(at.place);
    if (has[u]) v[u] = LoadArrived(p.group.bases[at.part] + slot + i * 16);
  }
#pragma unroll
  for (int u = 0; u < kThreadVectors; ++u) {
    const ChunkPlace at = PlaceOf(p, chunk, threadIdx.x + u * kReduceThreads);
    if (has[u]) OutputPart<F>(p, at.part).Store(at.place, v[u]);
  }
}

__device__ __forceinline__ void RaiseStep(const ReduceGroup& g, uint32_t step) {
  const int r = threadIdx.x;
  if (r >= g.num_ranks || r == g.rank) return;
  StoreRelease(&ChannelsOf(g, r)->flags[step % kSlots][blockIdx.x][g.rank], FlagWord(step, 0));
}

// True in all threads when every peer's end of the channel has raised this step's flag.
__device__ __forceinline__ bool AwaitStep(const ReduceGroup& g, Phase phase, uint32_t step) {
  const int r = threadIdx.x;
  bool failed = false;
  if (r < g.num_ranks && r != g.rank) {
    uint32_t value = 0;
    auto* abort = reinterpret_cast<uint32_t*>(g.bases[g.rank] + g.abort_offset);
    const Waiter waiter = {abort,       g.host_abort, g.bases,           g.abort_offset,
                           g.num_ranks, g.rank,       g.wait_nanoseconds};
    failed = !WaitForFlag(waiter, &ChannelsOf(g, g.rank)->flags[step % kSlots][blockIdx.x][r], step,
                          phase, r, &value);
  }
  return __syncthreads_or(failed) == 0;
}

template <typename F>
__global__ void __launch_bounds__(kReduceThreads, 2)
    ReduceKernel(const __grid_constant__ ReduceParams p) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (p.args.lets_next_in) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  const ReduceGroup& g = p.group;
  uint32_t* done = &ChannelsOf(g, g.rank)->steps[blockIdx.x];
  const uint32_t first = LoadRelaxed(done) + 1;
  const auto* abort = reinterpret_cast<const uint32_t*>(g.bases[g.rank] + g.abort_offset);
  // After an abort what is staged stays as it is.
  if (__syncthreads_or(threadIdx.x == 0 && Aborted(abort))) return;
  const auto chunks = static_cast<int>((p.num_chunks - blockIdx.x + gridDim.x - 1) / gridDim.x);
  const int steps = p.fetches ? chunks + 2 : chunks;  // that have a flag
  const auto chunk_of = [](int t) { return int64_t{t} * gridDim.x + blockIdx.x; };
  for (int t = 0; t <= max(steps - 1, chunks); ++t) {
    const uint32_t step = first + t;
    if (t < chunks) Stage<F>(p, chunk_of(t), g.bases[g.rank] + SlotOffset(g, step));
    __syncthreads();
    TestDelay(g.test_delay, step, 0);
    if (t < steps) RaiseStep(g, step);
    if (t > 0 && t <= chunks) Sum<F>(p, chunk_of(t - 1), SlotOffset(g, step - 1));
    if (t < steps && !AwaitStep(g, p.phase, step)) return;
    TestDelay(g.test_delay, step, 1);
    if (p.fetches && t > 1) Fetch<F>(p, chunk_of(t - 2), SlotOffset(g, step - 2));
  }
  if (threadIdx.x == 0) *done = first + steps - 1;
}

// Fills in how the parts are cut into chunks; the blocks that serve them.
int CutIntoChunks(ReduceParams* p, int64_t most_blocks) {
  const int64_t columns = p->args.is_float32 ? 4 : 8;
  int64_t largest = 1;  // part, in vectors
  for (int r = 0; r < p->num_parts; ++r) {
    largest = std::max(largest, (p->begin[r + 1] - p->begin[r] + columns - 1) / columns);
  }
  // Few rows: chunks as short as let each thread have a vector.
  const int64_t all = largest * p->num_parts;
  int64_t chunk = kReduceThreads;
  while (chunk < kChunkVectors && chunk * most_blocks < all) chunk *= 2;
  const auto piece = std::bit_floor(static_cast<uint64_t>(chunk / p->num_parts));
  p->log_piece = std::bit_width(piece) - 1;
  p->num_chunks = (largest + static_cast<int64_t>(piece) - 1) / static_cast<int64_t>(piece);
  return static_cast<int>(std::min(p->num_chunks, most_blocks));
}

const char* CheckReduce(const ReduceGroup& group, const Reduction& args) {
  if (group.num_ranks < 1 || group.num_ranks > kMaxRanks || group.rank < 0 ||
      group.rank >= group.num_ranks) {
    return "a sum over ranks: 1 to 64 ranks with this rank among them";
  }
  for (int r = 0; r < group.num_ranks; ++r) {
    if (group.bases[r] == nullptr) return "a sum over ranks: every allocation must be given";
  }
  const uintptr_t element = args.is_float32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(args.in) % element != 0 ||
      reinterpret_cast<uintptr_t>(args.out) % element != 0) {
    return "a sum over ranks: elements must be aligned";
  }
  return nullptr;
}

auto* KernelFor(const ReduceParams& p) {
  const uintptr_t element = p.args.is_float32 ? 4 : 2;
  uintptr_t bits = reinterpret_cast<uintptr_t>(p.args.in) | reinterpret_cast<uintptr_t>(p.args.out);
  for (int r = 0; r <= p.num_parts; ++r) bits |= static_cast<uintptr_t>(p.begin[r]) * element;
  if (bits % 16 == 0) {
    return p.args.is_float32 ? ReduceKernel<Format<uint32_t, true>>
                             : ReduceKernel<Format<uint16_t, true>>;
  }
  return p.args.is_float32 ? ReduceKernel<Format<uint32_t, false>>
                           : ReduceKernel<Format<uint16_t, false>>;
}

const char* LaunchReduce(ReduceParams* p, CUstream_st* stream) {
  for (int r = 0; r < p->num_parts; ++r) {
    if (p->begin[r] > p->begin[r + 1]) return "a sum over ranks: parts must lie in order";
  }
  if (p->begin[p->num_parts] == p->begin[0]) return nullptr;
  const int most = p->args.num_blocks;
  const int blocks = CutIntoChunks(p, most > 0 ? std::min(most, kReduceBlocks) : kReduceBlocks);
  return Launch(KernelFor(*p), *p, blocks, kReduceThreads, 0, p->args.lets_next_in, stream);
}

}  // namespace

size_t ReduceBytes() {
  return static_cast<size_t>(kFirstSlot + int64_t{kReduceBlocks} * kSlots * kSlotBytes);
}

const char* LaunchAllReduce(const ReduceGroup& group, const Reduction& args, int64_t elements,
                            CUstream_st* stream) {
  if (const char* error = CheckReduce(group, args)) return error;
  // Bytes over the link that pay for a second wait.
  constexpr int64_t kWorthAWait = int64_t{1} << 20;
  const int64_t ranks = group.num_ranks;
  const int64_t columns = args.is_float32 ? 4 : 8;
  const int64_t vectors = (elements + columns - 1) / columns;
  ReduceParams params = {.group = group, .args = args};
  params.phase = Phase::kAllReduce;
  // A rank reads its peers' data, or twice all but a share of the data.
  params.fetches = vectors * 16 * (ranks - 1) * (ranks - 2) > kWorthAWait * ranks;
  params.num_parts = params.fetches ? group.num_ranks : 1;
  const int64_t part = (vectors + params.num_parts - 1) / params.num_parts * columns;
  for (int r = 0; r <= params.num_parts; ++r) params.begin[r] = std::min(r * part, elements);
  return LaunchReduce(&params, stream);
}

const char* LaunchReduceScatter(const ReduceGroup& group, const Reduction& args,
                                const int64_t* begin, CUstream_st* stream) {
  if (const char* error = CheckReduce(group, args)) return error;
  ReduceParams params = {.group = group, .args = args};
  params.phase = Phase::kReduceScatter;
  params.num_parts = group.num_ranks;
  std::copy_n(begin, group.num_ranks + 1, params.begin);
  params.out_begin = begin[group.rank];
  return LaunchReduce(&params, stream);
}

}  // namespace moebius::cuda::exchange
