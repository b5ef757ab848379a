#include "comm/cuda/device_communicator.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kernels/cuda/exchange/exchange.h"

namespace moebius::comm {

namespace exchange = cuda::exchange;

int MostWaitingBlocks(int num_sharers) {
  return num_sharers > 1 ? std::max(4, 32 / num_sharers) : 0;
}

namespace {

// The abort word is in it, also where nothing is gathered; letters come behind, then channels.
size_t GatherPart(const DeviceStaging& staging) {
  return exchange::GatherBytes(static_cast<int64_t>(staging.gather));
}

size_t ChannelsOffset(const DeviceStaging& staging) {
  const size_t letters =
      staging.message > 0 ? exchange::LettersBytes(static_cast<int64_t>(staging.message)) : 0;
  return GatherPart(staging) + letters;
}

}  // namespace

// Member r brings counts[r] rows of widths[r] bytes, which go to offsets[r] of `all` and below.
struct DeviceCommunicator::Rows {
  std::vector<int64_t> offsets;
  std::vector<int64_t> counts;
  std::vector<int64_t> widths;
};

Result<PeerMemory> DeviceCommunicator::Allocate(const DeviceStaging& staging) {
  const size_t channels = staging.reduces ? exchange::ReduceBytes() : 0;
  return PeerMemory::Allocate(ChannelsOffset(staging) + channels, exchange::GatherAbortOffset());
}

DeviceCommunicator::DeviceCommunicator(DeviceGroup group, PeerMemory* memory,
                                       const DeviceStaging& staging)
    : group_(std::move(group)), memory_(memory), staging_(staging) {
  MOEBIUS_CHECK_EQ(group_.bases.size(), group_.info.world_ranks.size());
  MOEBIUS_CHECK_LE(size(), exchange::kMaxRanks);
}

const Status& DeviceCommunicator::status() const {
  // Also after an error of its own: the kernels must hear of it.
  const Status now = memory_->Check(group_.info);
  if (status_) status_ = now;
  return status_;
}

void DeviceCommunicator::Refuse(const char* call) {
  if (status_) {
    status_ = MakeError(ErrorCode::kUnsupported, "{} between GPUs ({}) is not there", call,
                        group_.info.name);
  }
}

void DeviceCommunicator::Keep(const char* error, const char* call) {
  if (error == nullptr || !status_) return;
  status_ = MakeError(ErrorCode::kInternal, "CUDA: {} of {}: {}", call, group_.info.name, error);
}

template <typename Group>
Group DeviceCommunicator::MakeGroup() const {
  Group group;
  group.num_ranks = size();
  group.rank = rank();
  std::ranges::copy(group_.bases, group.bases);
  group.host_abort = memory_->host_abort();
  group.wait_nanoseconds = static_cast<uint64_t>(group_.wait_limit.count());
  return group;
}

// In as many calls as the staging memory wants: the same number on every member.
void DeviceCommunicator::Gather(const Rows& rows, Mat mine, Mat all) {
  if (!status_) return;
  const int64_t width = std::ranges::max(rows.widths);
  const int64_t count = std::ranges::max(rows.counts);
  if (width == 0 || count == 0) return;
  const auto staging_bytes = static_cast<int64_t>(staging_.gather);
  if (staging_bytes == 0) return Refuse("an all-gather");
  MOEBIUS_CHECK_LE(width, staging_bytes);
  auto group = MakeGroup<exchange::GatherGroup>();
  group.staging_bytes = staging_bytes;
  exchange::AllGather call;
  call.mine_stride = mine.stride * static_cast<int64_t>(SizeOf(mine.dtype));
  call.out = all.data;
  call.out_stride = all.stride * static_cast<int64_t>(SizeOf(all.dtype));
  call.num_blocks = MostWaitingBlocks(group_.num_sharers);
  call.lets_next_in = group_.num_sharers == 1;
  const int64_t rows_a_call = staging_bytes / width;
  for (int64_t first = 0; first < count; first += rows_a_call) {
    call.mine = static_cast<const std::byte*>(mine.data) + first * call.mine_stride;
    for (size_t r = 0; r < rows.counts.size(); ++r) {
      const int64_t left = std::max<int64_t>(0, rows.counts[r] - first);
      call.pieces[r] = {.offset = rows.offsets[r] + first * call.out_stride,
                        .rows = static_cast<int32_t>(std::min(left, rows_a_call)),
                        .row_bytes = static_cast<int32_t>(rows.widths[r])};
    }
    Keep(exchange::LaunchAllGather(group, call, group_.stream), "all-gather");
  }
  const auto own = static_cast<size_t>(rank());
  bytes_.gather += rows.counts[own] * rows.widths[own];
}

void DeviceCommunicator::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  MOEBIUS_CHECK_EQ(all.size(), mine.size() * static_cast<size_t>(size()));
  // Bytes as rows of whatever has two of them.
  const auto width = static_cast<int64_t>(mine.size() / 2);
  MOEBIUS_CHECK_EQ(mine.size() % 2, size_t{0});
  std::vector<int64_t> row_begin;
  for (int r = 0; r <= size(); ++r) row_begin.push_back(r);
  AllGatherRows(Mat(const_cast<std::byte*>(mine.data()), DType::kBF16, 1, width),
                Mat(all.data(), DType::kBF16, size(), width), row_begin);
}

void DeviceCommunicator::AllGatherRows(Mat mine, Mat all, std::span<const int64_t> row_begin) {
  const auto element = static_cast<int64_t>(SizeOf(all.dtype));
  Rows rows;
  for (size_t r = 0; r + 1 < row_begin.size(); ++r) {
    rows.offsets.push_back(row_begin[r] * all.stride * element);
    rows.counts.push_back(row_begin[r + 1] - row_begin[r]);
    rows.widths.push_back(all.cols * element);
  }
  Gather(rows, mine, all);
}

void DeviceCommunicator::AllGatherColumns(Mat mine, Mat all,
                                          std::span<const int64_t> column_begin) {
  const auto element = static_cast<int64_t>(SizeOf(all.dtype));
  Rows rows;
  for (size_t r = 0; r + 1 < column_begin.size(); ++r) {
    rows.offsets.push_back(column_begin[r] * element);
    rows.counts.push_back(all.rows);
    rows.widths.push_back((column_begin[r + 1] - column_begin[r]) * element);
  }
  Gather(rows, mine, all);
}

void DeviceCommunicator::Reduce(Mat data, Mat out, std::span<const int64_t> begin) {
  const char* const call = begin.empty() ? "all-reduce" : "reduce-scatter";
  if (!status_) return;
  if (!staging_.reduces) return Refuse("a sum");
  MOEBIUS_CHECK(data.dtype == DType::kBF16 || data.dtype == DType::kF32);
  MOEBIUS_CHECK(out.dtype == data.dtype && out.cols == data.cols);
  MOEBIUS_CHECK(data.rows <= 1 || data.stride == data.cols);
  MOEBIUS_CHECK(out.rows <= 1 || out.stride == out.cols);
  auto group = MakeGroup<exchange::ReduceGroup>();
  group.abort_offset = static_cast<int64_t>(exchange::GatherAbortOffset());
  group.channels_offset = static_cast<int64_t>(ChannelsOffset(staging_));
  const exchange::Reduction reduction = {.in = data.data,
                                         .out = out.data,
                                         .is_float32 = data.dtype == DType::kF32,
                                         .num_blocks = MostWaitingBlocks(group_.num_sharers),
                                         .lets_next_in = group_.num_sharers == 1};
  const int64_t elements = data.rows * data.cols;
  Keep(begin.empty() ? exchange::LaunchAllReduce(group, reduction, elements, group_.stream)
                     : exchange::LaunchReduceScatter(group, reduction, begin.data(), group_.stream),
       call);
  bytes_.reduce += elements * static_cast<int64_t>(SizeOf(data.dtype));
}

void DeviceCommunicator::AllReduce(Mat data) { Reduce(data, data, {}); }

void DeviceCommunicator::ReduceScatter(Mat data, Mat out, std::span<const int64_t> row_begin) {
  MOEBIUS_CHECK_EQ(row_begin.size(), static_cast<size_t>(size()) + 1);
  std::vector<int64_t> begin(row_begin.begin(), row_begin.end());
  for (int64_t& row : begin) row *= data.cols;
  Reduce(data, out, begin);
}

// In as many messages as it takes: the same number on both sides.
void DeviceCommunicator::Pass(bool sends, int peer, std::span<std::byte> data) {
  if (!status_) return;
  if (staging_.message == 0 || peer != rank() + (sends ? 1 : -1)) return Refuse("a message");
  auto group = MakeGroup<exchange::PassGroup>();
  group.abort_offset = static_cast<int64_t>(exchange::GatherAbortOffset());
  group.letters_offset = static_cast<int64_t>(GatherPart(staging_));
  group.letter_bytes = static_cast<int64_t>(staging_.message);
  exchange::Message message;
  message.num_blocks = MostWaitingBlocks(group_.num_sharers);
  message.lets_next_in = group_.num_sharers == 1;
  while (!data.empty()) {
    const std::span<std::byte> piece = data.first(std::min(data.size(), staging_.message));
    message.data = piece.data();
    message.bytes = static_cast<int64_t>(piece.size());
    Keep(sends ? exchange::LaunchSend(group, message, group_.stream)
               : exchange::LaunchReceive(group, message, group_.stream),
         sends ? "send" : "receive");
    if (sends) bytes_.send += message.bytes;
    data = data.subspan(piece.size());
  }
}

void DeviceCommunicator::Send(int peer, std::span<const std::byte> data) {
  Pass(true, peer, {const_cast<std::byte*>(data.data()), data.size()});
}

void DeviceCommunicator::Receive(int peer, std::span<std::byte> data) { Pass(false, peer, data); }

}  // namespace moebius::comm
