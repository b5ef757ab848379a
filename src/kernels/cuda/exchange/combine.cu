// Combine: the owner of experts sends what it computed to the token's home, and the home adds each
// token as soon as its rows are there.
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
  int positions[kTeams];  // in the home's region
};

// sum[u] of the columns at vector begin + u * step, in order. kArrived: peers wrote the rows.
template <bool kArrived, int kVectors, int kColumns>
__device__ __forceinline__ void AddTerms(const std::byte* const* rows, const float* weights,
                                         int count, int begin, int step, int vectors,
                                         float (&sum)[kVectors][kColumns]) {
  constexpr int kInFlight = 4;
  for (int j = 0; j < count; j += kInFlight) {
    uint4 v[kInFlight][kVectors];
#pragma unroll
    for (int t = 0; t < kInFlight; ++t) {
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        if (j + t < count && begin + u * step < vectors) {
          const std::byte* from = rows[j + t] + int64_t{begin + u * step} * 16;
          v[t][u] = kArrived ? LoadArrived(from) : *reinterpret_cast<const uint4*>(from);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kInFlight; ++t) {
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        if (j + t < count) AddScaled(sum[u], weights[j + t], v[t][u]);
      }
    }
  }
}

// What dispatch left of a token: one of its places a lane.
struct Arrival {
  int32_t place = -1;
  float weight = 0;
  uint32_t position = kNoRow;

  __device__ __forceinline__ void Load(const Endpoint& e, int source, int token) {
    const int lane = threadIdx.x % 32;
    const int k = e.group.shape.top_k;
    const uint32_t* from = e.arrival(source, token);
    place = lane < k ? static_cast<int32_t>(LoadRelaxed(from + lane)) : -1;
    weight = lane < k ? __uint_as_float(LoadRelaxed(from + k + lane)) : 0.0f;
    position = LoadRelaxed(from + 2 * k);
  }
};

template <int kThreads, int kTeam, int kColumns>
__device__ __forceinline__ void SendRow(const SendParams& p, uint32_t sequence, int source,
                                        int token, const Arrival& arrival,
                                        Terms<kThreads / kTeam>& terms) {
  using Rows = Team<kThreads, kTeam>;
  constexpr int kVectors = kTeam == 32 ? 2 : 1;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  if (lane < 32) {  // one warp of the team
    const uint32_t have = __ballot_sync(~0u, arrival.place >= 0);
    if (arrival.place >= 0) {
      const int at = __popc(have & ((1u << lane) - 1));
      terms.rows[team][at] = static_cast<const std::byte*>(p.args.expert_rows) +
                             arrival.place * p.e.layout.result_stride;
      terms.weights[team][at] = arrival.weight;
      if (s.deterministic) {
        terms.homes[team][at] = p.e.result(source, int64_t{token} * s.top_k + lane);
      }
    }
    if (lane == 0) {
      terms.count[team] = __popc(have);
      terms.positions[team] = static_cast<int>(arrival.position);
    }
  }
  Rows::Sync();
  const int count = terms.count[team];
  const int position = terms.positions[team];
  const int vectors = s.hidden / kColumns;
  if (s.deterministic) {
    for (int j = 0; j < count; ++j) {
      const auto* from = reinterpret_cast<const uint4*>(terms.rows[team][j]);
      auto* to = reinterpret_cast<uint4*>(terms.homes[team][j]);
#pragma unroll 4
      for (int i = lane; i < vectors; i += kTeam) to[i] = from[i];
    }
  } else if (count > 0) {
    auto* to = reinterpret_cast<uint4*>(
        p.e.result(source, int64_t{p.e.group.rank} * s.max_tokens + position));
    for (int i = lane; i < vectors; i += kTeam * kVectors) {
      float sum[kVectors][kColumns] = {};
      AddTerms<false>(terms.rows[team], terms.weights[team], count, i, kTeam, vectors, sum);
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        if (i + u * kTeam < vectors) to[i + u * kTeam] = Pack(sum[u]);
      }
    }
  }
  Rows::Sync();  // all is written, and the next row may take the shared memory
  if (lane == 0 && count > 0) {
    StoreRelease(p.e.result_flag(source, p.e.group.rank, position), FlagWord(sequence, 0));
  }
}

// kColumns: of 16 bytes.
template <int kThreads, int kTeam, int kColumns>
__global__ void __launch_bounds__(kThreads, BlocksPerMultiprocessor(kThreads))
    CombineSendKernel(const __grid_constant__ SendParams p) {
  JoinStream();
  using Rows = Team<kThreads, kTeam>;
  __shared__ Terms<Rows::kTeams> terms;
  __shared__ int tokens[kMaxRanks];
  const int num_ranks = p.e.group.shape.num_ranks;
  const int64_t max_tokens = p.e.group.shape.max_tokens;
  const int stride = static_cast<int>(gridDim.x) * Rows::kTeams;
  int item = blockIdx.x * Rows::kTeams + Rows::Index();  // token-major: of every source in turn
  const bool aborted = threadIdx.x == 0 && Aborted(&p.e.signals()->abort);
  if (threadIdx.x < num_ranks) {
    tokens[threadIdx.x] = static_cast<int>(LoadRelaxed(&p.e.signals()->tokens[threadIdx.x]));
  }
  Arrival arrival;
  if (Rows::Lane() < 32 && item < max_tokens * num_ranks) {
    arrival.Load(p.e, item % num_ranks, item / num_ranks);
  }
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  if (__syncthreads_or(aborted)) return;
  TestDelay(p.e.group.test_delay, sequence, 2);
  if (blockIdx.x == 0 && threadIdx.x == 0) p.e.signals()->taken = 0;
  // All that dispatch brought has been read by the kernel that received it: sources may go on.
  const int r = kThreads - 1 - static_cast<int>(threadIdx.x);
  if (blockIdx.x == 0 && r < num_ranks) {
    StoreRelease(&SignalsOf(p.e.group.bases[r])->combine[p.e.group.rank], FlagWord(sequence, 0));
  }
  int most = 0;
  for (int i = 0; i < num_ranks; ++i) most = max(most, tokens[i]);
  for (; item < most * num_ranks; item += stride) {
    const int token = item / num_ranks;
    const int source = item % num_ranks;
    if (token < tokens[source]) {
      SendRow<kThreads, kTeam, kColumns>(p, sequence, source, token, arrival, terms);
    }
    const int next = item + stride;
    if (Rows::Lane() < 32 && next < most * num_ranks) {
      arrival.Load(p.e, next % num_ranks, next / num_ranks);
    }
  }
}

// A lane: the result that it waits for, by the token's routes; and a term of its sum.
struct Expected {
  int32_t route = kNoRoute;
  int64_t row = -1;  // negative: none
  float weight = 1.0f;

  __device__ __forceinline__ void Load(const ReceiveParams& p, int64_t token) {
    const Shape& s = p.e.group.shape;
    const int lane = threadIdx.x % 32;
    route = kNoRoute;
    row = -1;
    if (lane >= s.top_k) return;
    const int64_t pair = token * s.top_k + lane;
    route = static_cast<int32_t>(LoadRelaxed(p.e.own_at<int32_t>(p.e.layout.routes) + pair));
    if (s.deterministic) {
      if (p.args.slots[pair] >= 0) row = pair;
      weight = p.args.weights[pair];
    } else if (route >= 0) {
      row = int64_t{RouteRank(route)} * s.max_tokens + RoutePosition(route);
    }
  }
};

template <int kThreads, int kTeam, int kColumns>
__device__ __forceinline__ void AddToken(const ReceiveParams& p, uint32_t sequence, int64_t token,
                                         const Expected& expected, Terms<kThreads / kTeam>& terms,
                                         bool& joined) {
  using Rows = Team<kThreads, kTeam>;
  constexpr int kVectors = kTeam == 32 ? 2 : 1;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  if (lane < 32) {  // one warp of the team
    bool failed = false;
    if (expected.route >= 0) {
      const int owner = RouteRank(expected.route);
      uint32_t value = 0;
      failed = !WaitForFlag(p.e.waiter(),
                            p.e.result_flag(p.e.group.rank, owner, RoutePosition(expected.route)),
                            sequence, Phase::kCombine, owner, &value);
    }
    failed = __any_sync(~0u, failed);
    const uint32_t have = __ballot_sync(~0u, expected.row >= 0);
    if (expected.row >= 0) {
      const int at = __popc(have & ((1u << lane) - 1));
      terms.rows[team][at] = p.e.result(p.e.group.rank, expected.row);
      terms.weights[team][at] = expected.weight;
    }
    if (lane == 0) terms.count[team] = failed ? -1 : __popc(have);
  }
  if (!joined) {
    JoinStream();
    joined = true;
  }
  Rows::Sync();
  const int count = terms.count[team];
  const int vectors = count < 0 ? 0 : s.hidden / kColumns;
  const int64_t at = token * vectors;
  const auto* shared = static_cast<const uint4*>(p.args.shared);
  for (int i = lane; i < vectors; i += kTeam * kVectors) {
    float sum[kVectors][kColumns] = {};
    AddTerms<true>(terms.rows[team], terms.weights[team], count, i, kTeam, vectors, sum);
#pragma unroll
    for (int u = 0; u < kVectors; ++u) {
      const int to = i + u * kTeam;
      if (to >= vectors) break;
      if (shared != nullptr) AddScaled(sum[u], 1.0f, shared[at + to]);
      static_cast<uint4*>(p.args.out)[at + to] = Pack(sum[u]);
    }
  }
  Rows::Sync();  // before the next token takes the shared memory
}

// Few tokens: what comes next may start while they are added. Many: sending goes on beside this
// kernel, which only ends after it.
template <int kThreads, int kTeam, int kColumns>
__global__ void __launch_bounds__(kThreads, BlocksPerMultiprocessor(kThreads))
    CombineReceiveKernel(const __grid_constant__ ReceiveParams p) {
  using Rows = Team<kThreads, kTeam>;
  __shared__ Terms<Rows::kTeams> terms;
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  const int num_tokens = p.e.num_tokens(p.args.num_tokens);
  const int stride = static_cast<int>(gridDim.x) * Rows::kTeams;
  int token = blockIdx.x * Rows::kTeams + Rows::Index();
  const bool adds = Rows::Lane() < 32;
  Expected expected;
  if (adds && token < num_tokens) expected.Load(p, token);
  // One block sees that every rank has begun, also those that have no row for this one.
  const int r = kThreads - 1 - static_cast<int>(threadIdx.x);
  if (blockIdx.x == 0 && r < p.e.group.shape.num_ranks) {
    uint32_t value = 0;
    WaitForFlag(p.e.waiter(), &p.e.signals()->combine[r], sequence, Phase::kCombine, r, &value);
  }
  __syncwarp();
  // The shared expert's rows may come from the kernel before this one.
  bool joined = kTeam == 32;
  if (kTeam == 32 && p.args.shared != nullptr) JoinStream();
  for (; token < num_tokens; token += stride) {
    AddToken<kThreads, kTeam, kColumns>(p, sequence, token, expected, terms, joined);
    if (adds && token + stride < num_tokens) expected.Load(p, token + stride);
  }
  if (kTeam == 32 || !joined) JoinStream();
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
                params, Blocks(grid, group.shape.num_ranks * MostTokens(group.shape, grid)),
                Threads(grid.mode), 0, grid.early_launch, stream);
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
                params, Blocks(grid, MostTokens(group.shape, grid)), Threads(grid.mode), 0,
                grid.early_launch, stream);
}

}  // namespace moebius::cuda::exchange
