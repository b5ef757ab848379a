// Dispatch, first half: rows, what they are for, and counts go straight into the receivers'
// regions. Tokens are dealt to blocks in chunks.
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
  std::byte* rows[kTeams][kMaxTopK];  // of the token, at its destinations
  int32_t routes[kTeams][kMaxTopK];
  float scales[kTeams][kMaxHidden / kScaleBlock];
};

// Neighbouring lanes store neighbouring 16 bytes: the link carries half-filled packets otherwise.
template <RowFormat kFormat, int kTeam>
__device__ __forceinline__ void SendColumns(const uint4* from, const Shape& s, int lane,
                                            std::byte* const* rows, int num_rows, float* scales) {
  if constexpr (kFormat == RowFormat::kFp8) {
#pragma unroll 2
    for (int i = lane; i < s.hidden / kLaneColumns; i += kTeam) {
      float scale;
      const uint4 packed = Quantize(from[2 * i], from[2 * i + 1], &scale);
      if (i % 8 == 0) scales[i / 8] = scale;
      for (int d = 0; d < num_rows; ++d) reinterpret_cast<uint4*>(rows[d])[i] = packed;
    }
  } else {
    const int vectors = static_cast<int>(s.row_bytes() / 16);
#pragma unroll 2
    for (int i = lane; i < vectors; i += kTeam) {
      const uint4 values = from[i];
      for (int d = 0; d < num_rows; ++d) reinterpret_cast<uint4*>(rows[d])[i] = values;
    }
  }
}

// Token, codes and weights of the pairs that this destination serves.
template <int kTeam>
__device__ __forceinline__ void SendMeta(const SendParams& p, int64_t token, int32_t route,
                                         int lane) {
  const Shape& s = p.e.group.shape;
  uint32_t* meta = p.e.meta(RouteRank(route), p.e.group.rank, RoutePosition(route));
  const int32_t* ordinals = p.e.own_at<int32_t>(p.e.layout.ordinals);
  for (int word = lane; word < 1 + 2 * s.top_k; word += kTeam) {
    uint32_t value = static_cast<uint32_t>(token);
    if (word > s.top_k) {
      value = __float_as_uint(p.args.weights[token * s.top_k + word - 1 - s.top_k]);
    } else if (word > 0) {
      const int64_t pair = token * s.top_k + word - 1;
      const int slot = p.args.slots[pair];
      const bool there = slot >= 0 && slot / s.slots_per_rank == RouteRank(route);
      value = there ? PairCode(slot % s.slots_per_rank, ordinals[pair]) : kNoPair;
    }
    meta[word] = value;
  }
}

template <RowFormat kFormat, int kThreads, int kTeam>
__device__ void SendToken(const SendParams& p, int64_t token,
                          SendShared<kThreads / kTeam>& shared) {
  using Rows = Team<kThreads, kTeam>;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  if (lane < s.top_k) {
    const int32_t route = p.e.own_at<int32_t>(p.e.layout.routes)[token * s.top_k + lane];
    shared.routes[team][lane] = route;
    if (route >= 0) {
      shared.rows[team][lane] = p.e.row(RouteRank(route), p.e.group.rank, RoutePosition(route));
    }
  }
  Rows::Sync();
  const int32_t* routes = shared.routes[team];
  int num_rows = 0;
  while (num_rows < s.top_k && routes[num_rows] >= 0) ++num_rows;
  float* scales = shared.scales[team];
  const auto* from = reinterpret_cast<const uint4*>(static_cast<const std::byte*>(p.args.rows) +
                                                    token * s.row_bytes());
  SendColumns<kFormat, kTeam>(from, s, lane, shared.rows[team], num_rows, scales);
  for (int d = 0; d < num_rows; ++d) SendMeta<kTeam>(p, token, routes[d], lane);
  Rows::Sync();
  if constexpr (kFormat == RowFormat::kFp8) {
    const int blocks = s.hidden / kScaleBlock;
    for (int d = 0; d < num_rows; ++d) {
      auto* to = reinterpret_cast<float*>(shared.rows[team][d] + s.hidden);
      for (int b = lane; b < blocks; b += kTeam) to[b] = scales[b];
    }
  }
  Rows::Sync();  // before the next token takes the shared memory
}

// The rows that this block reads first are on their way to the L2 cache while it counts.
template <int kThreads>
__device__ __forceinline__ void PrefetchRows(const SendParams& p, int begin, int end) {
  const int64_t row_bytes = p.e.group.shape.row_bytes();
  const auto* rows = static_cast<const std::byte*>(p.args.rows);
  const int64_t from = begin * row_bytes;
  const int64_t to = min(end * row_bytes, from + kThreads * int64_t{128});
  for (int64_t at = from + threadIdx.x * int64_t{128}; at < to; at += kThreads * int64_t{128}) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(rows + at));
  }
}

template <RowFormat kFormat, int kThreads, int kTeam>
__global__ void __launch_bounds__(kThreads, 1)
    DispatchSendKernel(const __grid_constant__ SendParams p) {
  BeginKernel();
  extern __shared__ uint16_t counts[];
  __shared__ SendShared<kThreads / kTeam> shared;
  const Shape& s = p.e.group.shape;
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  const int num_tokens = p.e.num_tokens(p.args.num_tokens);
  const int chunk = (num_tokens + gridDim.x - 1) / gridDim.x;
  const int begin = min(static_cast<int>(blockIdx.x) * chunk, num_tokens);
  const int end = min(begin + chunk, num_tokens);
  // The block of the last token knows all counts.
  const bool knows_all = num_tokens == 0 ? blockIdx.x == 0 : begin < end && end == num_tokens;
  if ((begin < end || knows_all) && !BlockAborted(p.e)) {
    PrefetchRows<kThreads>(p, begin, end);
    PlanChunk<kThreads>(s, p.args.slots, begin, end, p.e.own_at<int32_t>(p.e.layout.routes),
                        p.e.own_at<int32_t>(p.e.layout.ordinals), shared.plan, counts);
    TestDelay(p.e.group.test_delay, sequence, 0);
    if (knows_all) {
      for (int i = threadIdx.x; i < s.num_slots(); i += kThreads) {
        const int to = i / s.slots_per_rank;
        p.e.counts(to, p.e.group.rank)[i % s.slots_per_rank] = shared.plan.total[i];
      }
      if (threadIdx.x < s.num_ranks) {
        p.e.signals()->sent[threadIdx.x] = shared.plan.total[s.num_slots() + threadIdx.x];
      }
    }
    for (int token = begin + Team<kThreads, kTeam>::Index(); token < end;
         token += kThreads / kTeam) {
      SendToken<kFormat, kThreads, kTeam>(p, token, shared);
    }
  }
  FlagAll(p.e, kDispatchCounter, sequence, true);
}

template <RowFormat kFormat>
const char* LaunchFormat(const SendParams& params, const Grid& grid, CUstream_st* stream) {
  const bool latency = grid.mode == Mode::kLatency;
  const int threads = Threads(grid.mode);
  return Launch(latency ? DispatchSendKernel<kFormat, kLatencyThreads, kLatencyThreads>
                        : DispatchSendKernel<kFormat, kThroughputThreads, 32>,
                params, Blocks(grid), threads, PlanBytes(params.e.group.shape, threads),
                grid.early_launch, stream);
}

}  // namespace

const char* LaunchDispatchSend(const Group& group, const Sequence& sequence, const Grid& grid,
                               const DispatchSend& args, CUstream_st* stream) {
  if (const char* error = CheckGroup(group, sequence, grid)) return error;
  const Shape& s = group.shape;
  if ((int64_t{s.max_tokens} / Blocks(grid) + 1) * s.top_k > 65535) {
    return "dispatch: more than 65535 pairs a block; give it more blocks";
  }
  if (args.slots == nullptr || args.num_tokens == nullptr || args.weights == nullptr ||
      args.rows == nullptr || reinterpret_cast<uintptr_t>(args.rows) % 16 != 0) {
    return "dispatch: rows (16-byte aligned), slots, weights and num_tokens must be given";
  }
  const SendParams params = {MakeEndpoint(group, sequence), args};
  return s.format == RowFormat::kFp8 ? LaunchFormat<RowFormat::kFp8>(params, grid, stream)
                                     : LaunchFormat<RowFormat::kBf16>(params, grid, stream);
}

}  // namespace moebius::cuda::exchange
