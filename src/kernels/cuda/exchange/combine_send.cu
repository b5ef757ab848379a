// Combine, first half: the owner of experts sends what it computed to the token's home.
#include "kernels/cuda/exchange/sum_rows.cuh"

namespace moebius::cuda::exchange {
namespace {

struct SendParams {
  Endpoint e;
  CombineSend args;
};

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

}  // namespace moebius::cuda::exchange
