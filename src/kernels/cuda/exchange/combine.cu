// Combine: the owner of experts sends what it computed to the token's home, and the home adds.
#include "kernels/cuda/exchange/kernel.cuh"

namespace moebius::cuda::exchange {
namespace {

struct SendParams {
  Endpoint e;
  CombineSend args;
};
struct ReceiveParams {
  Endpoint e;
  CombineReceive args;
};

// Rows that a team adds, with their weights, in the order they are added.
template <int kTeams>
struct Terms {
  const std::byte* rows[kTeams][kMaxTopK];
  float weights[kTeams][kMaxTopK];
  std::byte* homes[kTeams][kMaxTopK];  // deterministic: where each row goes
  int count[kTeams];
};

// sum[i] of the columns at `vector`, in order. kArrived: peers wrote the rows.
template <bool kArrived, int kColumns>
__device__ __forceinline__ void AddTerms(const std::byte* const* rows, const float* weights,
                                         int count, int vector, float (&sum)[kColumns]) {
  constexpr int kInFlight = 4;
  for (int j = 0; j < count; j += kInFlight) {
    uint4 v[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (j + u < count) {
        const std::byte* from = rows[j + u] + int64_t{vector} * 16;
        v[u] = kArrived ? LoadArrived(from) : *reinterpret_cast<const uint4*>(from);
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (j + u < count) AddScaled(sum, weights[j + u], v[u]);
    }
  }
}

template <int kThreads, int kTeam, int kColumns>
__device__ void SendRow(const SendParams& p, int source, int position,
                        Terms<kThreads / kTeam>& terms) {
  using Rows = Team<kThreads, kTeam>;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  if (lane < 32) {  // one warp of the team
    const uint32_t* meta = p.e.meta(p.e.group.rank, source, position);
    const int64_t first = (int64_t{source} * s.max_tokens + position) * s.top_k;
    const int32_t place =
        lane < s.top_k ? p.e.own_at<int32_t>(p.e.layout.places)[first + lane] : -1;
    const uint32_t have = __ballot_sync(~0u, place >= 0);
    if (place >= 0) {
      const int at = __popc(have & ((1u << lane) - 1));
      terms.rows[team][at] =
          static_cast<const std::byte*>(p.args.expert_rows) + place * p.e.layout.result_stride;
      terms.weights[team][at] = __uint_as_float(LoadRelaxed(meta + 1 + s.top_k + lane));
      if (s.deterministic) {
        const int64_t token = LoadRelaxed(meta);
        terms.homes[team][at] = p.e.result(source, token * s.top_k + lane);
      }
    }
    if (lane == 0) terms.count[team] = __popc(have);
  }
  Rows::Sync();
  const int count = terms.count[team];
  const int vectors = s.hidden / kColumns;
  if (s.deterministic) {
    for (int j = 0; j < count; ++j) {
      const auto* from = reinterpret_cast<const uint4*>(terms.rows[team][j]);
      auto* to = reinterpret_cast<uint4*>(terms.homes[team][j]);
      for (int i = lane; i < vectors; i += kTeam) to[i] = from[i];
    }
  } else {
    auto* to = reinterpret_cast<uint4*>(
        p.e.result(source, int64_t{p.e.group.rank} * s.max_tokens + position));
#pragma unroll 2
    for (int i = lane; i < vectors; i += kTeam) {
      float sum[kColumns] = {};
      AddTerms<false>(terms.rows[team], terms.weights[team], count, i, sum);
      to[i] = Pack(sum);
    }
  }
  Rows::Sync();  // before the next row takes the shared memory
}

// kColumns: of 16 bytes.
template <int kThreads, int kTeam, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    CombineSendKernel(const __grid_constant__ SendParams p) {
  BeginKernel();
  constexpr int kTeams = kThreads / kTeam;
  __shared__ Terms<kTeams> terms;
  __shared__ Arrived arrived;
  const int num_ranks = p.e.group.shape.num_ranks;
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  // Without abort, dispatch has seen these flags; nobody overwrites them before our own.
  if (!BlockAborted(p.e)) {
    if (threadIdx.x < num_ranks) {
      arrived.first[threadIdx.x + 1] =
          static_cast<int>(FlagRows(LoadAcquire(&p.e.signals()->dispatch[threadIdx.x])));
    }
    __syncthreads();
    if (threadIdx.x < 32) arrived.Sum(num_ranks);
    __syncthreads();
    TestDelay(p.e.group.test_delay, sequence, 2);
    const int num_rows = arrived.first[num_ranks];
    for (int item = blockIdx.x * kTeams + Team<kThreads, kTeam>::Index(); item < num_rows;
         item += gridDim.x * kTeams) {
      const int source = arrived.Source(item);
      SendRow<kThreads, kTeam, kColumns>(p, source, item - arrived.first[source], terms);
    }
  }
  FlagAll(p.e, kCombineCounter, sequence, false);
}

template <int kThreads, int kTeam, int kColumns>
__device__ void AddToken(const ReceiveParams& p, int64_t token, Terms<kThreads / kTeam>& terms) {
  using Rows = Team<kThreads, kTeam>;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  if (lane < 32) {  // one warp of the team
    const int64_t pair = token * s.top_k + lane;
    bool exists = false;
    int64_t row = 0;
    float weight = 1.0f;
    if (lane < s.top_k) {
      if (s.deterministic) {
        exists = p.args.slots[pair] >= 0;
        row = pair;
        weight = p.args.weights[pair];
      } else {
        const int32_t route = p.e.own_at<int32_t>(p.e.layout.routes)[pair];
        exists = route >= 0;
        row = int64_t{RouteRank(route)} * s.max_tokens + RoutePosition(route);
      }
    }
    const uint32_t have = __ballot_sync(~0u, exists);
    if (exists) {
      const int at = __popc(have & ((1u << lane) - 1));
      terms.rows[team][at] = p.e.result(p.e.group.rank, row);
      terms.weights[team][at] = weight;
    }
    if (lane == 0) terms.count[team] = __popc(have);
  }
  Rows::Sync();
  const int vectors = s.hidden / kColumns;
  const int64_t at = token * vectors;
  const auto* shared = static_cast<const uint4*>(p.args.shared);
#pragma unroll 2
  for (int i = lane; i < vectors; i += kTeam) {
    float sum[kColumns] = {};
    AddTerms<true>(terms.rows[team], terms.weights[team], terms.count[team], i, sum);
    if (shared != nullptr) AddScaled(sum, 1.0f, shared[at + i]);
    static_cast<uint4*>(p.args.out)[at + i] = Pack(sum);
  }
  Rows::Sync();  // before the next token takes the shared memory
}

template <int kThreads, int kTeam, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    CombineReceiveKernel(const __grid_constant__ ReceiveParams p) {
  BeginKernel();
  constexpr int kTeams = kThreads / kTeam;
  __shared__ Terms<kTeams> terms;
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  bool failed = false;
  if (threadIdx.x < p.e.group.shape.num_ranks) {
    uint32_t rows = 0;
    failed = !WaitForFlag(p.e.waiter(), &p.e.signals()->combine[threadIdx.x], sequence,
                          Phase::kCombine, threadIdx.x, &rows);
  }
  if (__syncthreads_or(failed)) return;
  const int num_tokens = p.e.num_tokens(p.args.num_tokens);
  for (int token = blockIdx.x * kTeams + Team<kThreads, kTeam>::Index(); token < num_tokens;
       token += gridDim.x * kTeams) {
    AddToken<kThreads, kTeam, kColumns>(p, token, terms);
  }
}

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

const char* LaunchCombineSend(const Group& group, const Sequence& sequence, const Grid& grid,
                              const CombineSend& args, CUstream_st* stream) {
  if (const char* error = CheckGroup(group, sequence, grid)) return error;
  if (args.expert_rows == nullptr || !Aligned(args.expert_rows)) {
    return "combine: expert_rows must be given, 16-byte aligned";
  }
  const SendParams params = {MakeEndpoint(group, sequence), args};
  constexpr auto kTokens = kLatencyThreads;
  const bool wide = group.shape.format == RowFormat::kF32;
  return Launch(grid.mode == Mode::kLatency ? (wide ? CombineSendKernel<kTokens, kTokens, 4>
                                                    : CombineSendKernel<kTokens, kTokens, 8>)
                                            : (wide ? CombineSendKernel<kThroughputThreads, 32, 4>
                                                    : CombineSendKernel<kThroughputThreads, 32, 8>),
                params, Blocks(grid), Threads(grid.mode), 0, grid.early_launch, stream);
}

const char* LaunchCombineReceive(const Group& group, const Sequence& sequence, const Grid& grid,
                                 const CombineReceive& args, CUstream_st* stream) {
  if (const char* error = CheckGroup(group, sequence, grid)) return error;
  if (args.slots == nullptr || args.weights == nullptr || args.num_tokens == nullptr ||
      args.out == nullptr || !Aligned(args.out) || !Aligned(args.shared)) {
    return "combine: slots, weights, num_tokens and out must be given, rows 16-byte aligned";
  }
  const ReceiveParams params = {MakeEndpoint(group, sequence), args};
  constexpr auto kTokens = kLatencyThreads;
  const bool wide = group.shape.format == RowFormat::kF32;
  return Launch(grid.mode == Mode::kLatency
                    ? (wide ? CombineReceiveKernel<kTokens, kTokens, 4>
                            : CombineReceiveKernel<kTokens, kTokens, 8>)
                    : (wide ? CombineReceiveKernel<kThroughputThreads, 32, 4>
                            : CombineReceiveKernel<kThroughputThreads, 32, 8>),
                params, Blocks(grid), Threads(grid.mode), 0, grid.early_launch, stream);
}

}  // namespace moebius::cuda::exchange
