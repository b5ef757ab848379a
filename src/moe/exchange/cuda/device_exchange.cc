#include "moe/exchange/cuda/device_exchange.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/math.h"
#include "kernels/cuda/ops/cuda_ops.h"
#include "platform/cuda/device_memory_space.h"

namespace moebius::moe {

namespace device = cuda::exchange;

namespace {

constexpr int kThroughputBlocks = 132;  // a multiprocessor each
// Of dispatch's sends, which the link bounds: the other multiprocessors copy what has come.
constexpr int kSendBlocks = 43;

device::RowFormat FormatOf(DType act) {
  return act == DType::kF32 ? device::RowFormat::kF32 : device::RowFormat::kBf16;
}

device::Shape ShapeFor(const ExchangeShape& shape) {
  device::Shape s;
  s.num_ranks = shape.num_ranks;
  s.slots_per_rank = static_cast<int>(shape.slots_per_rank());
  s.max_tokens = static_cast<int>(shape.max_tokens);
  s.top_k = static_cast<int>(shape.top_k);
  s.hidden = static_cast<int>(shape.hidden);
  s.format = FormatOf(shape.act);
  s.deterministic = shape.deterministic;
  return s;
}

// Of counts_: which word is what.
constexpr size_t kStepWord = 0;
constexpr size_t kSpareWord = 1;
constexpr size_t kFirstCount = 2;

}  // namespace

Status DeviceExchange::Check(const ExchangeShape& shape) {
  const int64_t width = shape.row_bytes();
  if (shape.num_ranks <= device::kMaxRanks && shape.num_slots <= device::kMaxSlots &&
      shape.top_k <= device::kMaxTopK && shape.hidden <= device::kMaxHidden &&
      shape.max_tokens <= device::kMaxTokens && width % 16 == 0) {
    return {};
  }
  return MakeError(
      ErrorCode::kUnsupported,
      "experts on {} ranks with {} slots, top-{} and rows of {} x {} bytes cannot be exchanged "
      "between GPUs, expected at most {} ranks, {} slots, top-{}, rows of whole 16 bytes and at "
      "most {} elements",
      shape.num_ranks, shape.num_slots, shape.top_k, shape.hidden, SizeOf(shape.act),
      device::kMaxRanks, device::kMaxSlots, device::kMaxTopK, device::kMaxHidden);
}

Result<comm::PeerMemory> DeviceExchange::Allocate(const ExchangeShape& shape) {
  MOEBIUS_TRY(Check(shape));
  const auto num_bytes = static_cast<size_t>(device::MakeLayout(ShapeFor(shape)).bytes);
  return comm::PeerMemory::Allocate(num_bytes, offsetof(device::Signals, abort));
}

Result<std::unique_ptr<DeviceExchange>> DeviceExchange::Create(const ExchangeShape& shape,
                                                               ExchangeMode mode,
                                                               comm::DeviceGroup group,
                                                               comm::PeerMemory* memory) {
  MOEBIUS_TRY(Check(shape));
  std::unique_ptr<DeviceExchange> exchange(
      new DeviceExchange(shape, mode, std::move(group), memory));
  MOEBIUS_TRY(exchange->AllocateCounts());
  return exchange;
}

DeviceExchange::DeviceExchange(const ExchangeShape& shape, ExchangeMode mode,
                               comm::DeviceGroup group, comm::PeerMemory* memory)
    : shape_(shape), wish_(mode), group_(std::move(group)), memory_(memory) {
  MOEBIUS_CHECK_EQ(group_.info.size(), shape.num_ranks);
  MOEBIUS_CHECK_EQ(group_.bases.size(), group_.info.world_ranks.size());
  peers_.shape = ShapeFor(shape);
  peers_.rank = group_.info.rank;
  std::ranges::copy(group_.bases, peers_.bases);
  peers_.host_abort = memory->host_abort();
  peers_.wait_nanoseconds = static_cast<uint64_t>(group_.wait_limit.count());
}

Status DeviceExchange::AllocateCounts() {
  std::vector<int32_t> words(kFirstCount + static_cast<size_t>(shape_.max_tokens) + 1);
  std::iota(words.begin() + kFirstCount, words.end(), 0);
  const size_t num_bytes = words.size() * sizeof(int32_t);
  MOEBIUS_ASSIGN(counts_, platform::cuda::DeviceMemory::Allocate(num_bytes));
  MOEBIUS_TRY(platform::cuda::DeviceMemorySpace().Upload(counts_.data(), words.data(), num_bytes));
  const std::vector<float> ones(static_cast<size_t>(shape_.max_tokens * shape_.top_k), 1.0f);
  const size_t one_bytes = ones.size() * sizeof(float);
  MOEBIUS_ASSIGN(ones_, platform::cuda::DeviceMemory::Allocate(one_bytes));
  MOEBIUS_TRY(platform::cuda::DeviceMemorySpace().Upload(ones_.data(), ones.data(), one_bytes));
  sequence_.step = reinterpret_cast<const uint32_t*>(counts_.data()) + kStepWord;
  sequence_.calls_per_step = kCallsPerStep;
  return {};
}

Status DeviceExchange::status() const {
  // Also after an error of its own: the kernels must hear of it.
  const Status now = memory_->Check(group_.info);
  if (status_) status_ = now;
  return status_;
}

void DeviceExchange::Keep(const char* error, const char* what) {
  if (error == nullptr || !status_) return;
  status_ = MakeError(ErrorCode::kInternal, "CUDA: {} of {}: {}", what, group_.info.name, error);
}

// What is launched early behind a kernel that waits holds its place meanwhile. Where the peers that
// are waited for use the same GPU it might be theirs: a kernel that lets nothing in before it runs
// goes between.
void DeviceExchange::LeaveRoom() {
  if (group_.num_sharers == 1) return;
  auto* spare = reinterpret_cast<uint32_t*>(counts_.data()) + kSpareWord;
  Keep(device::LaunchAdvanceStep(spare, group_.stream), "a pause");
}

void DeviceExchange::BeginStep(int64_t /*step*/, std::chrono::steady_clock::time_point /*at*/) {
  auto* step = reinterpret_cast<uint32_t*>(counts_.data()) + kStepWord;
  Keep(device::LaunchAdvanceStep(step, group_.stream), "counting a step");
  sequence_.call = 0;
}

int64_t DeviceExchange::MaxPlaces(int64_t max_rows, int64_t k) const {
  const int64_t rows = std::min(max_rows, shape_.max_tokens);
  return shape_.num_ranks * rows * std::min(k, shape_.slots_per_rank());
}

// fp8 rows and their scales take less than bfloat16.
size_t DeviceExchange::ArenaBytes(int64_t max_rows, int64_t k, int64_t /*num_slots*/) const {
  return static_cast<size_t>(MaxPlaces(max_rows, k) * shape_.row_bytes()) +
         static_cast<size_t>(shape_.slots_per_rank() + 1) * sizeof(int32_t) + 4 * Arena::kAlignment;
}

device::Grid DeviceExchange::GridOf(int throughput_blocks) const {
  device::Grid grid;
  const bool throughput = mode_ == ExchangeMode::kThroughput;
  grid.mode = throughput ? device::Mode::kThroughput : device::Mode::kLatency;
  grid.num_blocks = comm::MostWaitingBlocks(group_.num_sharers);
  if (grid.num_blocks == 0 && throughput) grid.num_blocks = throughput_blocks;
  grid.most_tokens = static_cast<int>(most_tokens_);
  grid.early_launch = group_.num_sharers == 1;
  return grid;
}

DispatchedRows DeviceExchange::Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                        Arena& arena) {
  MOEBIUS_CHECK_EQ(args.k, shape_.top_k);
  MOEBIUS_CHECK_EQ(args.num_slots, shape_.num_slots);
  MOEBIUS_CHECK_LT(sequence_.call, kCallsPerStep - 1);
  ++sequence_.call;
  // Rows of padding beyond what may be sent have no slots.
  num_tokens_ = std::min(args.rows.rows, shape_.max_tokens);
  const int64_t most =
      args.most_rows > 0 ? std::min(args.most_rows, shape_.max_tokens) : shape_.max_tokens;
  MOEBIUS_CHECK(args.most_rows == 0 || args.rows.rows <= args.most_rows);
  most_tokens_ = most;
  mode_ = wish_;
  if (wish_ == ExchangeMode::kAuto) {
    mode_ = most >= kDeviceThroughputTokens ? ExchangeMode::kThroughput : ExchangeMode::kLatency;
  }
  const int64_t places = MaxPlaces(most, args.k);
  const bool fp8 = kernels::cuda::QuantizesExpertRows(ctx, args.read_by);
  peers_.shape.format = fp8 ? device::RowFormat::kFp8 : FormatOf(shape_.act);
  const Mat rows = arena.AllocMat(fp8 ? DType::kF8E4M3 : shape_.act, places, shape_.hidden);
  Mat scales;
  if (fp8) {
    scales = arena
                 .AllocMat(DType::kF32, shape_.hidden / kernels::kScaleBlock,
                           CeilDiv(places, int64_t{4}) * 4)
                 .Cols(0, places);
  }
  const int64_t num_offsets = shape_.slots_per_rank() + 1;
  auto* offsets = arena.Alloc<int32_t>(num_offsets);
  // Without tokens nothing is read, but there must be something to point at.
  const bool empty = num_tokens_ == 0;
  slots_ = empty ? reinterpret_cast<const int32_t*>(rows.data) : args.slots.data();
  weights_ = empty || args.weights.empty() ? reinterpret_cast<const float*>(ones_.data())
                                           : args.weights.data();

  device::DispatchSend send;
  send.rows = empty ? rows.data : args.rows.data;
  send.slots = slots_;
  send.weights = weights_;
  send.num_tokens = reinterpret_cast<const int32_t*>(counts_.data()) + kFirstCount + num_tokens_;
  send.capacity = static_cast<int>(num_tokens_);
  Keep(device::LaunchDispatchSend(peers_, sequence_, GridOf(kSendBlocks), send, group_.stream),
       "dispatch");
  device::DispatchReceive receive;
  receive.rows = rows.data;
  receive.scales = scales.Row<float>(0);
  receive.scale_stride = scales.stride;
  receive.capacity = places;
  receive.offsets = offsets;
  Keep(device::LaunchDispatchReceive(peers_, sequence_, GridOf(kThroughputBlocks), receive,
                                     group_.stream),
       "dispatch");
  LeaveRoom();
  return {.rows = rows,
          .row_scales = scales,
          .offsets = {offsets, static_cast<size_t>(num_offsets)},
          .pairs = {},
          .rows_per_pair = 1,
          .weights = {},
          .max_places = places,
          .likely_places = std::max<int64_t>(1, most * args.k)};
}

void DeviceExchange::Combine(kernels::ExecContext& /*ctx*/, const CombineArgs& args) {
  MOEBIUS_CHECK(args.weighted || weights_ == reinterpret_cast<const float*>(ones_.data()));
  device::CombineSend send;
  send.expert_rows = args.expert_rows.data;
  Keep(device::LaunchCombineSend(peers_, sequence_, GridOf(kThroughputBlocks), send, group_.stream),
       "combine");
  device::CombineReceive receive;
  receive.slots = slots_;
  receive.weights = weights_;
  receive.num_tokens = reinterpret_cast<const int32_t*>(counts_.data()) + kFirstCount + num_tokens_;
  receive.shared = args.shared.data;
  receive.out = num_tokens_ == 0 ? args.expert_rows.data : args.out.data;
  Keep(device::LaunchCombineReceive(peers_, sequence_, GridOf(kThroughputBlocks), receive,
                                    group_.stream),
       "combine");
  LeaveRoom();
}

}  // namespace moebius::moe
