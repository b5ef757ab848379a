// Dispatch, second half: waits for the rows of every source, finds from their counts where each
// slot's rows begin, and copies each row once to every slot it is for.
#include <algorithm>

#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {
namespace {

struct ReceiveParams {
  Endpoint e;
  DispatchReceive args;
};

template <int kTeams>
struct ReceiveShared {
  Arrived arrived;
  int place[kMaxSlots];              // [source][slot]: of ordinal 0
  int begin[kMaxSlots + 1];          // of each slot
  int32_t places[kTeams][kMaxTopK];  // of the row that a team copies; those it has, first
  int num_places[kTeams];
};

// True when every source has sent; the same in all threads.
template <class Shared>
__device__ bool WaitForRows(const Endpoint& e, uint32_t sequence, Shared& shared) {
  bool failed = false;
  const int r = threadIdx.x;
  if (r < e.group.shape.num_ranks) {
    uint32_t rows = 0;
    failed =
        !WaitForFlag(e.waiter(), &e.signals()->dispatch[r], sequence, Phase::kDispatch, r, &rows);
    shared.arrived.first[r + 1] = static_cast<int>(rows);
  }
  return __syncthreads_or(failed) == 0;
}

// Where each (source, slot) begins, from the counts. Ends with a barrier.
template <int kThreads, class Shared>
__device__ void FindPlaces(const Endpoint& e, Shared& shared) {
  const Shape& s = e.group.shape;
  const int num_slots = s.slots_per_rank;
  const int32_t* counts = e.counts(e.group.rank, 0);
  for (int i = threadIdx.x; i < s.num_slots(); i += kThreads) {
    shared.place[i] = static_cast<int>(LoadRelaxed(counts + i));
  }
  if (threadIdx.x < 32) shared.arrived.Sum(s.num_ranks);
  __syncthreads();
  for (int slot = threadIdx.x; slot < num_slots; slot += kThreads) {
    int sum = 0;
    for (int r = 0; r < s.num_ranks; ++r) {
      int& at = shared.place[r * num_slots + slot];
      const int count = at;
      at = sum;
      sum += count;
    }
    shared.begin[slot + 1] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    int carry = 0;
    if (threadIdx.x == 0) shared.begin[0] = 0;
    for (int base = 0; base < num_slots; base += 32) {
      const int slot = base + static_cast<int>(threadIdx.x);
      int sum = slot < num_slots ? shared.begin[slot + 1] : 0;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, sum, step);
        if (static_cast<int>(threadIdx.x) >= step) sum += other;
      }
      if (slot < num_slots) shared.begin[slot + 1] = carry + sum;
      carry += __shfl_sync(~0u, sum, 31);
    }
  }
  __syncthreads();
}

template <RowFormat kFormat, int kThreads, int kTeam>
__device__ void CopyRow(const ReceiveParams& p, int source, int position,
                        ReceiveShared<kThreads / kTeam>& shared) {
  using Rows = Team<kThreads, kTeam>;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  int32_t* const places = shared.places[team];
  if (lane < 32) {  // one warp of the team
    const uint32_t* meta = p.e.meta(p.e.group.rank, source, position);
    int place = -1;
    if (lane < s.top_k) {
      const uint32_t code = LoadRelaxed(meta + 1 + lane);
      if (code != kNoPair) {
        const int slot = PairSlot(code);
        place =
            shared.begin[slot] + shared.place[source * s.slots_per_rank + slot] + PairOrdinal(code);
      }
      p.e.own_at<int32_t>(
          p.e.layout.places)[(int64_t{source} * s.max_tokens + position) * s.top_k + lane] = place;
    }
    const uint32_t have = __ballot_sync(~0u, place >= 0);
    if (place >= 0) places[__popc(have & ((1u << lane) - 1))] = place;
    if (lane == 0) shared.num_places[team] = __popc(have);
  }
  Rows::Sync();
  const int num_places = shared.num_places[team];
  const std::byte* row = p.e.row(p.e.group.rank, source, position);
  const int64_t row_bytes = kFormat == RowFormat::kFp8 ? s.hidden : s.row_bytes();
  const int vectors = static_cast<int>(row_bytes / 16);
  auto* out = static_cast<std::byte*>(p.args.rows);
  constexpr int kUnroll = kTeam == 32 ? 4 : 1;
  for (int i = lane; i < vectors; i += kTeam * kUnroll) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u * kTeam < vectors) v[u] = LoadArrived(row + (i + u * kTeam) * 16);
    }
    for (int j = 0; j < num_places; ++j) {
      auto* to = reinterpret_cast<uint4*>(out + places[j] * row_bytes);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (i + u * kTeam < vectors) to[i + u * kTeam] = v[u];
      }
    }
  }
  if constexpr (kFormat == RowFormat::kFp8) {
    for (int b = lane; b < s.hidden / kScaleBlock; b += kTeam) {
      const float scale = __uint_as_float(LoadRelaxed(row + s.hidden + b * 4));
      float* to = p.args.scales + b * p.args.scale_stride;
      for (int j = 0; j < num_places; ++j) to[places[j]] = scale;
    }
  }
  Rows::Sync();  // before the next row takes the shared memory
}

template <RowFormat kFormat, int kThreads, int kTeam>
__global__ void __launch_bounds__(kThreads, 1)
    DispatchReceiveKernel(const __grid_constant__ ReceiveParams p) {
  BeginKernel();
  constexpr int kTeams = kThreads / kTeam;
  __shared__ ReceiveShared<kTeams> shared;
  const Shape& s = p.e.group.shape;
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  if (!WaitForRows(p.e, sequence, shared)) {
    if (blockIdx.x == 0) {
      for (int i = threadIdx.x; i <= s.slots_per_rank; i += kThreads) p.args.offsets[i] = 0;
    }
    return;
  }
  TestDelay(p.e.group.test_delay, sequence, 1);
  FindPlaces<kThreads>(p.e, shared);
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i <= s.slots_per_rank; i += kThreads) {
      p.args.offsets[i] = shared.begin[i];
    }
  }
  const int num_rows = shared.arrived.first[s.num_ranks];
  for (int item = blockIdx.x * kTeams + Team<kThreads, kTeam>::Index(); item < num_rows;
       item += gridDim.x * kTeams) {
    const int source = shared.arrived.Source(item);
    CopyRow<kFormat, kThreads, kTeam>(p, source, item - shared.arrived.first[source], shared);
  }
}

template <RowFormat kFormat>
const char* LaunchFormat(const ReceiveParams& params, const Grid& grid, CUstream_st* stream) {
  return Launch(grid.mode == Mode::kLatency
                    ? DispatchReceiveKernel<kFormat, kLatencyThreads, kLatencyThreads>
                    : DispatchReceiveKernel<kFormat, kThroughputThreads, 32>,
                params, Blocks(grid), Threads(grid.mode), 0, grid.early_launch, stream);
}

}  // namespace

const char* LaunchDispatchReceive(const Group& group, const Sequence& sequence, const Grid& grid,
                                  const DispatchReceive& args, CUstream_st* stream) {
  if (const char* error = CheckGroup(group, sequence, grid)) return error;
  const bool fp8 = group.shape.format == RowFormat::kFp8;
  Shape known = group.shape;
  if (args.most_tokens > 0) known.max_tokens = std::min(known.max_tokens, args.most_tokens);
  if (args.capacity < WorstRows(known)) {
    return "dispatch: capacity below what the ranks may send";
  }
  if (args.rows == nullptr || args.offsets == nullptr ||
      reinterpret_cast<uintptr_t>(args.rows) % 16 != 0 ||
      (fp8 && (args.scales == nullptr || args.scale_stride < args.capacity))) {
    return "dispatch: rows (16-byte aligned), offsets and, for fp8, scales with a stride of at "
           "least capacity must be given";
  }
  const ReceiveParams params = {MakeEndpoint(group, sequence), args};
  return fp8 ? LaunchFormat<RowFormat::kFp8>(params, grid, stream)
             : LaunchFormat<RowFormat::kBf16>(params, grid, stream);
}

}  // namespace moebius::cuda::exchange
