// Dispatch, second half: waits for the counts of every source, finds where each slot's rows begin,
// and copies each row, as it comes, to every slot it is for. Scales lie by block, then by row: few
// are stored one by one; of many, a second kernel fills whole lines, which takes a tenth of the
// packets.
#include "kernels/cuda/exchange/places.cuh"

namespace moebius::cuda::exchange {
namespace {

constexpr int kScaleThreads = 128;
constexpr int kScaleBlocks = 264;

struct ReceiveParams {
  Endpoint e;
  DispatchReceive args;
};

// A warp: the position of the token's row in the region, once it has come, or kNoRow.
__device__ __forceinline__ uint32_t WaitForRow(const Endpoint& e, uint32_t sequence, int source,
                                               int token) {
  uint32_t position = kNoRow;
  if (threadIdx.x % 32 == 0 && !WaitForFlag(e.waiter(), e.flag(e.group.rank, source, token),
                                            sequence, Phase::kDispatch, source, &position)) {
    position = kNoRow;
  }
  position = __shfl_sync(~0u, position, 0);
  __syncwarp();
  return position;
}

// A warp finds the token's places, for its team and for combine.
template <class Shared>
__device__ __forceinline__ void PlaceRow(const Endpoint& e, int source, int token,
                                         uint32_t position, int team, Shared& shared) {
  const Shape& s = e.group.shape;
  const int lane = threadIdx.x % 32;
  int32_t place = -1;
  if (lane < s.top_k) {
    uint32_t weight = 0;
    if (position != kNoRow) {
      const uint32_t* meta = e.meta(e.group.rank, source, position);
      const uint32_t code = LoadRelaxed(meta + lane);
      weight = LoadRelaxed(meta + s.top_k + lane);
      if (code != kNoPair) {
        const int slot = PairSlot(code);
        place =
            shared.begin[slot] + shared.place[source * s.slots_per_rank + slot] + PairOrdinal(code);
      }
    }
    uint32_t* arrival = e.arrival(source, token);
    arrival[lane] = static_cast<uint32_t>(place);
    arrival[s.top_k + lane] = weight;
    if (lane == 0) arrival[2 * s.top_k] = position;
  }
  const uint32_t have = __ballot_sync(~0u, place >= 0);
  if (place >= 0) shared.places[team][__popc(have & ((1u << lane) - 1))] = place;
  if (lane == 0) shared.num_places[team] = __popc(have);
}

// What a lane copies of a row: vectors in flight together, and scales.
template <RowFormat kFormat, int kTeam>
struct Piece {
  static constexpr int kVectors = kTeam == 32 ? 4 : 2;
  static constexpr int kScales = (kMaxHidden / kScaleBlock + kTeam - 1) / kTeam;
  uint4 v[kVectors];
  uint32_t scale[kScales];

  __device__ __forceinline__ void Load(const std::byte* row, int begin, int vectors) {
#pragma unroll
    for (int u = 0; u < kVectors; ++u) {
      const int i = begin + u * kTeam;
      if (i < vectors) v[u] = LoadArrived(row + i * 16);
    }
  }
  __device__ __forceinline__ void Store(std::byte* out, int64_t row_bytes, const int32_t* places,
                                        int num_places, int begin, int vectors) const {
    for (int j = 0; j < num_places; ++j) {
      auto* to = reinterpret_cast<uint4*>(out + places[j] * row_bytes);
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        const int i = begin + u * kTeam;
        if (i < vectors) to[i] = v[u];
      }
    }
  }
  __device__ __forceinline__ void LoadScales(const std::byte* row, const Shape& s, int lane) {
#pragma unroll
    for (int u = 0; u < kScales; ++u) {
      const int b = lane + u * kTeam;
      if (b < s.hidden / kScaleBlock) scale[u] = LoadRelaxed(row + s.hidden + b * 4);
    }
  }
  // Or, for the second kernel, where they lie.
  __device__ __forceinline__ void StoreScales(const DispatchReceive& args, const int32_t* places,
                                              int num_places, const Shape& s, int32_t route,
                                              int lane) const {
    if constexpr (kTeam == 32) {
      if (lane < num_places) args.scales[places[lane]] = __int_as_float(route);
    } else {
#pragma unroll
      for (int u = 0; u < kScales; ++u) {
        const int b = lane + u * kTeam;
        if (b >= s.hidden / kScaleBlock) break;
        float* to = args.scales + b * args.scale_stride;
        for (int j = 0; j < num_places; ++j) to[places[j]] = __uint_as_float(scale[u]);
      }
    }
  }
};

template <RowFormat kFormat, int kThreads, int kTeam>
__device__ void CopyRow(const ReceiveParams& p, uint32_t sequence, int source, int token,
                        ReceiveShared<kThreads / kTeam>& shared, bool& joined) {
  using Rows = Team<kThreads, kTeam>;
  constexpr bool kFp8 = kFormat == RowFormat::kFp8;
  const Shape& s = p.e.group.shape;
  const int team = Rows::Index();
  const int lane = Rows::Lane();
  // Every warp waits by itself, so that the row is asked for together with its codes.
  const uint32_t position = WaitForRow(p.e, sequence, source, token);
  const bool exists = position != kNoRow;
  const std::byte* row = p.e.row(p.e.group.rank, source, exists ? position : 0);
  const int64_t row_bytes = kFp8 ? s.hidden : s.row_bytes();
  const int vectors = exists ? static_cast<int>(row_bytes / 16) : 0;
  Piece<kFormat, kTeam> piece;
  piece.Load(row, lane, vectors);
  if (kFp8 && kTeam != 32 && exists) piece.LoadScales(row, s, lane);
  if (lane < 32) PlaceRow(p.e, source, token, position, team, shared);
  if (!joined) {
    JoinStream();
    joined = true;
  }
  Rows::Sync();
  const int32_t* places = shared.places[team];
  const int num_places = exists ? shared.num_places[team] : 0;
  auto* out = static_cast<std::byte*>(p.args.rows);
  if (kFp8 && exists) {
    piece.StoreScales(p.args, places, num_places, s, Route(source, position), lane);
  }
  piece.Store(out, row_bytes, places, num_places, lane, vectors);
  constexpr int kStep = kTeam * Piece<kFormat, kTeam>::kVectors;
  for (int i = lane + kStep; i < vectors; i += kStep) {
    piece.Load(row, i, vectors);
    piece.Store(out, row_bytes, places, num_places, i, vectors);
  }
  Rows::Sync();  // before the next row takes the shared memory
}

// Few rows: a block each, and what comes next may start while they are copied. Many: sending goes
// on beside this kernel, which only ends after it; warps take rows in the order in which they are
// sent, those of blocks that find no room before sending has ended too.
template <RowFormat kFormat, int kThreads, int kTeam>
__global__ void __launch_bounds__(kThreads, BlocksPerMultiprocessor(kThreads))
    DispatchReceiveKernel(const __grid_constant__ ReceiveParams p) {
  using Rows = Team<kThreads, kTeam>;
  __shared__ ReceiveShared<Rows::kTeams> shared;
  const Shape& s = p.e.group.shape;
  const uint32_t sequence = SequenceNumber(p.e.sequence);
  const bool good = WaitForCounts<kThreads>(p.e, sequence, shared);
  TestDelay(p.e.group.test_delay, sequence, 1);
  if (good) FindPlaces<kThreads>(s, shared);
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i <= s.slots_per_rank; i += kThreads) {
      p.args.offsets[i] = good ? shared.begin[i] : 0;
    }
    if (good && threadIdx.x < s.num_ranks) {
      p.e.signals()->tokens[threadIdx.x] = shared.tokens[threadIdx.x];
    }
  }
  bool joined = kTeam == 32;
  int most = 0;
  for (int r = 0; good && r < s.num_ranks; ++r) most = max(most, shared.tokens[r]);
  const auto next = [&](int item) {
    if (kTeam != 32)
      return item < 0 ? static_cast<int>(blockIdx.x) : item + static_cast<int>(gridDim.x);
    if (Rows::Lane() == 0) item = static_cast<int>(atomicAdd(&p.e.signals()->taken, 1u));
    return __shfl_sync(~0u, item, 0);
  };
  for (int item = next(-1); item < most * s.num_ranks; item = next(item)) {
    const int token = item / s.num_ranks;
    const int source = item % s.num_ranks;
    if (token >= shared.tokens[source]) continue;
    CopyRow<kFormat, kThreads, kTeam>(p, sequence, source, token, shared, joined);
  }
  if (kTeam == 32 || !joined) JoinStream();
}

// A warp takes 32 neighbouring places: the scales of block 0 say where their rows came to.
__global__ void __launch_bounds__(kScaleThreads)
    ScatterScalesKernel(const __grid_constant__ ReceiveParams p) {
  JoinStream();
  const Shape& s = p.e.group.shape;
  const int blocks = s.hidden / kScaleBlock;
  const int total = p.args.offsets[s.slots_per_rank];
  for (int place = blockIdx.x * kScaleThreads + threadIdx.x; place < total;
       place += gridDim.x * kScaleThreads) {
    const int32_t route = __float_as_int(p.args.scales[place]);
    const int source = RouteRank(route);
    // After an abort it may be anything.
    if (source < 0 || source >= s.num_ranks || RoutePosition(route) >= s.max_tokens) continue;
    const std::byte* from = p.e.row(p.e.group.rank, source, RoutePosition(route)) + s.hidden;
#pragma unroll 4
    for (int b = 0; b < blocks; b += 4) {
      const uint4 v = LoadArrived(from + b * 4);
      const uint32_t scale[4] = {v.x, v.y, v.z, v.w};
      float* to = p.args.scales + b * p.args.scale_stride + place;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (b + i < blocks) to[i * p.args.scale_stride] = __uint_as_float(scale[i]);
      }
    }
  }
}

template <RowFormat kFormat>
const char* LaunchFormat(const ReceiveParams& params, const Grid& grid, CUstream_st* stream) {
  const Shape& s = params.e.group.shape;
  const int blocks = Blocks(grid, s.num_ranks * MostTokens(s, grid));
  if (grid.mode == Mode::kLatency) {
    return Launch(DispatchReceiveKernel<kFormat, kLatencyThreads, kLatencyThreads>, params, blocks,
                  kLatencyThreads, 0, grid.early_launch, stream);
  }
  const char* error = Launch(DispatchReceiveKernel<kFormat, kThroughputThreads, 32>, params, blocks,
                             kThroughputThreads, 0, grid.early_launch, stream);
  if (error != nullptr || kFormat != RowFormat::kFp8) return error;
  return Launch(ScatterScalesKernel, params, kScaleBlocks, kScaleThreads, 0, grid.early_launch,
                stream);
}

}  // namespace

const char* LaunchDispatchReceive(const Group& group, const Sequence& sequence, const Grid& grid,
                                  const DispatchReceive& args, CUstream_st* stream) {
  if (const char* error = CheckGroup(group, sequence, grid)) return error;
  const bool fp8 = group.shape.format == RowFormat::kFp8;
  Shape known = group.shape;
  known.max_tokens = static_cast<int>(MostTokens(group.shape, grid));
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
