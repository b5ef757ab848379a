// Combine, second half: a token's home adds what came for it as soon as its rows are there.
#include "kernels/cuda/exchange/sum_rows.cuh"

namespace moebius::cuda::exchange {
namespace {

struct ReceiveParams {
  Endpoint e;
  CombineReceive args;
};

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

}  // namespace

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
