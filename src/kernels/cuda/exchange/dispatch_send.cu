// Dispatch, first half: rows, what they are for, and counts go straight into the receivers'
// regions. Each block takes every so many'th chunk of tokens; the last one counts all of them
// first. Loads that need not wait for each other are asked for together: small batches are nothing
// but such waits.
#include <cuda_fp8.h>

#include "kernels/cuda/exchange/plan.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr float kMaxE4m3 = 448.0f;
constexpr int kLaneColumns = 16;

struct SendParams {
  Endpoint e;
  DispatchSend args;
};

__device__ __forceinline__ const uint4* RowOf(const SendParams& p, int64_t token) {
  return reinterpret_cast<const uint4*>(static_cast<const std::byte*>(p.args.rows) +
                                        token * p.e.group.shape.row_bytes());
}

// Quantises the 128 columns that 8 neighbouring lanes hold: as LaunchQuantizeRows does.
__device__ __forceinline__ uint4 Quantize(const uint4& a, const uint4& b, float* scale_out) {
  float x[2][8];
  Unpack(a, x[0]);
  Unpack(b, x[1]);
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < 16; ++i) largest = fmaxf(largest, fabsf(x[i / 8][i % 8]));
  const uint32_t lanes = 0xffu << (threadIdx.x % 32 & 24);
#pragma unroll
  for (int step = 4; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(lanes, largest, step));
  }
  // The smallest normal number bounds the inverse away from infinity.
  const float scale = largest > 0.0f ? fmaxf(largest / kMaxE4m3, 1.2e-38f) : 1.0f;
  const float inverse = 1.0f / scale;
  uint32_t words[4] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float* pair = &x[i / 4][i % 4 * 2];
    const uint32_t packed = __nv_cvt_float2_to_fp8x2(
        make_float2(pair[0] * inverse, pair[1] * inverse), __NV_SATFINITE, __NV_E4M3);
    words[i / 2] |= packed << (i % 2 * 16);
  }
  *scale_out = scale;
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <int kTeams>
struct SendShared {
  PlanShared plan;
  int32_t routes[kTeams][kMaxTopK];
  int num_routes[kTeams];
  float scales[kTeams][kMaxHidden / kScaleBlock];
};

// What a lane sends at once: fp8: 16 columns; else twice 16 bytes, in such an order that
// neighbouring lanes store neighbouring bytes (the link carries half-filled packets otherwise).
template <RowFormat kFormat, int kTeam>
struct Columns {
  static constexpr bool kFp8 = kFormat == RowFormat::kFp8;
  static constexpr int kStep = kFp8 ? kTeam : 2 * kTeam;  // vectors of a step
  uint4 v[2];

  static __device__ __forceinline__ int Vectors(const Shape& s) {
    return kFp8 ? s.hidden / kLaneColumns : static_cast<int>(s.row_bytes() / 16);
  }
  static __device__ __forceinline__ int Steps(const Shape& s) {
    return (Vectors(s) + kStep - 1) / kStep;
  }
  __device__ __forceinline__ void Load(const Shape& s, const uint4* row, int step, int lane) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const int i = step * kStep + lane + (kFp8 ? 0 : u * kTeam);
      if (i < Vectors(s)) v[u] = row[kFp8 ? 2 * i + u : i];
    }
  }
  __device__ __forceinline__ void Send(const Endpoint& e, const int32_t* routes, int num_routes,
                                       int step, int lane, float* scales) {
    const int vectors = Vectors(e.group.shape);
    const int i = step * kStep + lane;
    if (i >= vectors) return;
    if constexpr (kFp8) {
      float scale;
      v[0] = Quantize(v[0], v[1], &scale);
      if (i % 8 == 0) scales[i / 8] = scale;
    }
    for (int d = 0; d < num_routes; ++d) {
      auto* to = reinterpret_cast<uint4*>(
          e.row(RouteRank(routes[d]), e.group.rank, RoutePosition(routes[d])));
      to[i] = v[0];
      if (!kFp8 && i + kTeam < vectors) to[i + kTeam] = v[1];
    }
  }
};

// Codes and weights of the pairs that each destination serves; a warp.
__device__ __forceinline__ void SendMeta(const Endpoint& e, const Choice& choice,
                                         const int32_t* routes, int num_routes) {
  const Shape& s = e.group.shape;
  const int lane = threadIdx.x % 32;
  if (lane >= s.top_k) return;
  const uint32_t code = PairCode(choice.slot % s.slots_per_rank, choice.ordinal);
  for (int d = 0; d < num_routes; ++d) {
    const int to = RouteRank(routes[d]);
    uint32_t* meta = e.meta(to, e.group.rank, RoutePosition(routes[d]));
    meta[lane] = choice.rank == to ? code : kNoPair;
    meta[s.top_k + lane] = __float_as_uint(choice.weight);
  }
}

// Every rank hears of the token, also where none of its slots are. Begins with a barrier.
template <class Rows>
__device__ __forceinline__ void FlagToken(const Endpoint& e, uint32_t sequence, int token,
                                          const int32_t* routes, int num_routes) {
  const int num_ranks = e.group.shape.num_ranks;
  Rows::Sync();
  for (int r = Rows::Lane(); r < num_ranks; r += Rows::kSize) {
    uint32_t position = kNoRow;
    for (int d = 0; d < num_routes; ++d) {
      if (RouteRank(routes[d]) == r) position = RoutePosition(routes[d]);
    }
    StoreRelease(e.flag(r, e.group.rank, token), FlagWord(sequence, position));
  }
}

// `ahead` holds the row's first columns.
template <RowFormat kFormat, int kThreads, int kTeam, int kAhead>
__device__ __forceinline__ void SendRow(const SendParams& p, uint32_t sequence, int token,
                                        const int32_t* routes, int num_routes,
                                        Columns<kFormat, kTeam> (&ahead)[kAhead], float* scales) {
  using Rows = Team<kThreads, kTeam>;
  const Shape& s = p.e.group.shape;
  const int lane = Rows::Lane();
  const uint4* row = RowOf(p, token);
  const int steps = Columns<kFormat, kTeam>::Steps(s);
  for (int step = 0; step < steps; step += kAhead) {
    Columns<kFormat, kTeam> later[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) later[u].Load(s, row, step + kAhead + u, lane);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      ahead[u].Send(p.e, routes, num_routes, step + u, lane, scales);
      ahead[u] = later[u];
    }
  }
  if constexpr (kFormat == RowFormat::kFp8) {
    Rows::Sync();
    for (int d = 0; d < num_routes; ++d) {
      std::byte* to = p.e.row(RouteRank(routes[d]), p.e.group.rank, RoutePosition(routes[d]));
      for (int b = lane; b < s.hidden / kScaleBlock; b += kTeam) {
        reinterpret_cast<float*>(to + s.hidden)[b] = scales[b];
      }
    }
  }
  FlagToken<Rows>(p.e, sequence, token, routes, num_routes);
}

// A warp: the row is on its way to the L2 cache while others are sent.
__device__ __forceinline__ void PrefetchRow(const SendParams& p, int64_t token) {
  const int64_t row_bytes = p.e.group.shape.row_bytes();
  const auto* row = reinterpret_cast<const std::byte*>(RowOf(p, token));
  for (int64_t at = threadIdx.x % 32 * int64_t{128}; at < row_bytes; at += 32 * int64_t{128}) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(row + at));
  }
}

// How many tokens there are, and pairs for each slot: words that need no flag.
template <int kThreads>
__device__ void SendCounts(const SendParams& p, uint32_t sequence, int num_tokens,
                           TokenSlots& first, PlanShared& plan) {
  const Shape& s = p.e.group.shape;
  CountTokens<kThreads>(s, p.args.slots, 0, num_tokens, first, plan.earlier);
  __syncthreads();
  const int words = 1 + s.slots_per_rank;
  for (int i = threadIdx.x; i < s.num_ranks * words; i += kThreads) {
    const int to = i / words;
    const int slot = i % words - 1;
    const int count = slot < 0 ? num_tokens : plan.earlier[to * s.slots_per_rank + slot];
    StoreRelaxed(p.e.counts(to, p.e.group.rank) + i % words, FlagWord(sequence, count));
  }
  __syncthreads();
}

// Tokens that a block takes at once: one a team, but of several rounds the last one about as many
// as the others.
template <int kTeams>
__device__ __forceinline__ int TokensAtOnce(int num_tokens) {
  if constexpr (kTeams == 1) return 1;
  const auto blocks = static_cast<int>(gridDim.x);
  const int rounds = (num_tokens + blocks * kTeams - 1) / (blocks * kTeams);
  return rounds <= 1 ? kTeams : (num_tokens + blocks * rounds - 1) / (blocks * rounds);
}

template <RowFormat kFormat, int kThreads, int kTeam>
__global__ void __launch_bounds__(kThreads, BlocksPerMultiprocessor(kThreads))
    DispatchSendKernel(const __grid_constant__ SendParams p) {
  JoinStream();
  using Rows = Team<kThreads, kTeam>;
  constexpr int kAhead = kTeam == 32 ? 2 : 1;
  __shared__ SendShared<Rows::kTeams> shared;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  const bool plans = lane < 32;
  int32_t* const routes = shared.routes[team];
  const bool aborted = threadIdx.x == 0 && Aborted(&p.e.signals()->abort);
  const int num_tokens = min(p.e.num_tokens(p.args.num_tokens), p.args.capacity);
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  const int at_once = TokensAtOnce<Rows::kTeams>(num_tokens);
  const int stride = static_cast<int>(gridDim.x) * at_once;
  int begin = static_cast<int>(blockIdx.x) * at_once;
  int counted = 0;
  TokenSlots slots;
  if (blockIdx.x == gridDim.x - 1) {
    slots.Load(s, p.args.slots, threadIdx.x, p.args.capacity);
    ClearPlan<kThreads>(s, shared.plan);
    if (__syncthreads_or(aborted)) return;
    SendCounts<kThreads>(p, sequence, num_tokens, slots, shared.plan);
  }
  ClearPlan<kThreads>(s, shared.plan);
  do {
    const int token = team < at_once ? begin + team : p.args.capacity;
    slots.Load(s, p.args.slots, counted + threadIdx.x, min(begin, p.args.capacity));
    Choice choice;
    Columns<kFormat, kTeam> ahead[kAhead];
    if (token < p.args.capacity) {
      if (lane < s.top_k) {
        choice.slot = p.args.slots[int64_t{token} * s.top_k + lane];
        choice.weight = p.args.weights[int64_t{token} * s.top_k + lane];
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) ahead[u].Load(s, RowOf(p, token), u, lane);
    }
    if (__syncthreads_or(aborted) || begin >= num_tokens) return;
    if (kTeam == 32 && token + stride < num_tokens) PrefetchRow(p, token + stride);
    CountTokens<kThreads>(s, p.args.slots, counted, begin, slots, shared.plan.earlier);
    if (token >= num_tokens) choice.slot = -1;
    if (plans) choice.Mark(s, team, shared.plan);
    __syncthreads();
    if (plans) {
      const int num_routes = choice.Place(s, team, shared.plan, routes);
      if (lane == 0) shared.num_routes[team] = num_routes;
      if (lane < s.top_k && token < num_tokens) {
        p.e.own_at<int32_t>(p.e.layout.routes)[int64_t{token} * s.top_k + lane] = routes[lane];
      }
      SendMeta(p.e, choice, routes, num_routes);
    }
    __syncthreads();
    if (plans) choice.Unmark(s, shared.plan);
    TestDelay(p.e.group.test_delay, sequence, 0);
    if (token < num_tokens) {
      SendRow<kFormat, kThreads, kTeam>(p, sequence, token, routes, shared.num_routes[team], ahead,
                                        shared.scales[team]);
    }
    counted = begin;
    begin += stride;
  } while (begin < num_tokens);
}

template <RowFormat kFormat>
const char* LaunchFormat(const SendParams& params, const Grid& grid, CUstream_st* stream) {
  // One block more than tokens fill: it counts meanwhile.
  const int64_t rows = MostTokens(params.e.group.shape, grid) + 1;
  return Launch(grid.mode == Mode::kLatency
                    ? DispatchSendKernel<kFormat, kLatencyThreads, kLatencyThreads>
                    : DispatchSendKernel<kFormat, kThroughputThreads, 32>,
                params, Blocks(grid, rows), Threads(grid.mode), 0, grid.early_launch, stream);
}

}  // namespace

const char* LaunchDispatchSend(const Group& group, const Sequence& sequence, const Grid& grid,
                               const DispatchSend& args, CUstream_st* stream) {
  if (const char* error = CheckGroup(group, sequence, grid)) return error;
  const Shape& s = group.shape;
  if (args.slots == nullptr || args.num_tokens == nullptr || args.weights == nullptr ||
      args.rows == nullptr || reinterpret_cast<uintptr_t>(args.rows) % 16 != 0) {
    return "dispatch: rows (16-byte aligned), slots, weights and num_tokens must be given";
  }
  SendParams params = {MakeEndpoint(group, sequence), args};
  if (args.capacity < 0 || args.capacity > s.max_tokens) params.args.capacity = s.max_tokens;
  return s.format == RowFormat::kFp8 ? LaunchFormat<RowFormat::kFp8>(params, grid, stream)
                                     : LaunchFormat<RowFormat::kBf16>(params, grid, stream);
}

}  // namespace moebius::cuda::exchange
