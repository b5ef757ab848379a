#include "rank/step_channel.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace moebius::rank {
namespace {

using comm::Clock;
using comm::Signal;
using comm::WaitEnd;

constexpr size_t kSlotLine = 64;
constexpr int kLeader = 0;

// A line for what is left, then the data.
size_t SlotStride(const StepRingShape& shape) {
  return kSlotLine + (shape.slot_bytes + kSlotLine - 1) / kSlotLine * kSlotLine;
}

uint32_t Sequence(uint64_t piece) { return static_cast<uint32_t>(piece); }

size_t SignalBytes(const StepRingShape& shape) {
  return (1 + static_cast<size_t>(shape.num_followers)) * sizeof(Signal);
}

constexpr const char* kCall = "step channel";

}  // namespace

size_t StepRing::NumBytes(const StepRingShape& shape) {
  return SignalBytes(shape) + static_cast<size_t>(shape.num_slots) * SlotStride(shape);
}

StepRing::StepRing(const StepRingShape& shape, std::span<std::byte> memory)
    : shape_(shape), memory_(memory) {
  MOEBIUS_CHECK_GT(shape.num_slots, 0);
  MOEBIUS_CHECK_GT(shape.slot_bytes, size_t{0});
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(shape));
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(memory.data()) % kSlotLine, uintptr_t{0});
}

Signal& StepRing::written() const { return *reinterpret_cast<Signal*>(memory_.data()); }

Signal& StepRing::read(int follower) const {
  return reinterpret_cast<Signal*>(memory_.data())[1 + follower];
}

StepRing::Slot StepRing::SlotOf(uint64_t piece) const {
  const size_t index = piece % static_cast<uint64_t>(shape_.num_slots);
  std::byte* const slot = memory_.data() + SignalBytes(shape_) + index * SlotStride(shape_);
  return {reinterpret_cast<uint64_t*>(slot), slot + kSlotLine};
}

StepSender::StepSender(comm::GroupInfo info, const StepRingShape& shape,
                       std::span<std::byte> memory)
    : watch_(std::move(info)), ring_(shape, memory) {
  MOEBIUS_CHECK_EQ(watch_.info().rank, kLeader);
  MOEBIUS_CHECK_EQ(watch_.info().size(), shape.num_followers + 1);
}

// The slot of the next piece still holds the piece num_slots before it.
bool StepSender::WaitForSlot() {
  const auto num_slots = static_cast<uint32_t>(ring_.shape().num_slots);
  const uint32_t oldest = Sequence(next_piece_) - num_slots;
  for (int follower = 0; follower < ring_.shape().num_followers; ++follower) {
    if (!watch_.Wait(ring_.read(follower), oldest, num_slots - 1, follower + 1, kCall))
      return false;
  }
  return true;
}

Status StepSender::Push(std::span<const std::byte> block, Clock::time_point deadline) {
  MOEBIUS_TRY(watch_.status());
  if (block.size() > kMaxBlockBytes) {
    return MakeError(ErrorCode::kInvalidArgument, "a plan of {} bytes, expected at most {}",
                     block.size(), kMaxBlockBytes);
  }
  watch_.BeginStep(num_blocks_++, deadline);
  size_t begin = 0;
  do {
    if (!WaitForSlot()) return watch_.status();
    const size_t count = std::min(ring_.shape().slot_bytes, block.size() - begin);
    const StepRing::Slot slot = ring_.SlotOf(next_piece_);
    *slot.bytes_left = block.size() - begin;
    if (count > 0) std::memcpy(slot.data, block.data() + begin, count);
    comm::Raise(ring_.written(), Sequence(next_piece_++));
    begin += count;
  } while (begin < block.size());
  return {};
}

StepReceiver::StepReceiver(comm::GroupInfo info, const StepRingShape& shape,
                           std::span<std::byte> memory)
    : watch_(std::move(info)), ring_(shape, memory) {
  MOEBIUS_CHECK_GT(watch_.info().rank, kLeader);
  MOEBIUS_CHECK_EQ(watch_.info().size(), shape.num_followers + 1);
}

Status StepReceiver::TakePiece() {
  const StepRing::Slot slot = ring_.SlotOf(next_piece_);
  const uint64_t bytes_left = *slot.bytes_left;
  if (!is_in_block_) {
    if (bytes_left > kMaxBlockBytes) {
      return MakeError(ErrorCode::kCorrupt,
                       "step channel: a block of {} bytes, expected at most {}", bytes_left,
                       kMaxBlockBytes);
    }
    block_.resize(bytes_left);
    num_taken_ = 0;
  } else if (bytes_left != block_.size() - num_taken_) {
    return MakeError(ErrorCode::kCorrupt,
                     "step channel: {} bytes of a block are said to be left, expected {}",
                     bytes_left, block_.size() - num_taken_);
  }
  const size_t count = std::min(ring_.shape().slot_bytes, block_.size() - num_taken_);
  if (count > 0) std::memcpy(block_.data() + num_taken_, slot.data, count);
  num_taken_ += count;
  is_in_block_ = num_taken_ < block_.size();
  comm::Raise(ring_.read(watch_.info().rank - 1), Sequence(next_piece_++));
  return {};
}

Result<std::span<const std::byte>> StepReceiver::Pop(Clock::time_point deadline) {
  const auto num_slots = static_cast<uint32_t>(ring_.shape().num_slots);
  MOEBIUS_TRY(watch_.status());
  watch_.BeginStep(num_blocks_, deadline);
  do {
    const WaitEnd end =
        watch_.WaitOnly(ring_.written(), Sequence(next_piece_), num_slots - 1, kLeader, nullptr);
    if (end == WaitEnd::kDeadline) {
      const std::vector<int>& ranks = watch_.info().world_ranks;
      return MakeError(ErrorCode::kDeadline, "rank {} has sent rank {} no plan yet", ranks[kLeader],
                       ranks[static_cast<size_t>(watch_.info().rank)]);
    }
    if (end == WaitEnd::kAborted) {
      watch_.Fail(end, kLeader, kCall);
      return tl::unexpected(watch_.status().error());
    }
    MOEBIUS_TRY(TakePiece());
  } while (is_in_block_);
  ++num_blocks_;
  return std::span<const std::byte>(block_);
}

bool StepReceiver::HasBlock() const {
  const uint64_t word = ring_.written().word.load(std::memory_order_relaxed);
  return comm::SequenceOf(word) != Sequence(next_piece_ - 1);
}

}  // namespace moebius::rank
