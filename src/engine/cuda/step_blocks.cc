#include "engine/cuda/step_blocks.h"

#include <algorithm>

#include "base/check.h"

namespace moebius::engine {

using platform::cuda::CopyAsync;
using platform::cuda::DeviceMemory;
using platform::cuda::PinnedMemory;

Status StepBlocks::Allocate(size_t num_bytes, const platform::cuda::Stream& stream) {
  stream_ = &stream;
  MOEBIUS_ASSIGN(rows_, DeviceMemory::Allocate(num_bytes));
  for (Pinned& pinned : pinned_) {
    MOEBIUS_ASSIGN(pinned.rows, PinnedMemory::Allocate(num_bytes));
  }
  return GrowWishes(size_t{1} << 20);
}

// Lists of penalties and masks have no bound worth reserving for: the blocks grow when they must,
// and only then a step waits.
Status StepBlocks::GrowWishes(size_t num_bytes) {
  if (num_bytes <= wishes_.size()) return {};
  MOEBIUS_TRY(stream_->Synchronize());
  const size_t room = std::max(num_bytes, 2 * wishes_.size());
  MOEBIUS_ASSIGN(wishes_, DeviceMemory::Allocate(room));
  for (Pinned& pinned : pinned_) {
    MOEBIUS_ASSIGN(pinned.wishes, PinnedMemory::Allocate(room));
  }
  return {};
}

Result<StepBlocks::Written> StepBlocks::Write(const StagedPlan& plan, int64_t slot) {
  const StepInputs::Bytes bytes = StepInputs::NumBytes(plan.sizes());
  MOEBIUS_CHECK_LE(bytes.rows, rows_.size());
  const bool is_one = bytes.rows + Arena::kAlignment + bytes.draws <= rows_.size();
  if (!is_one) MOEBIUS_TRY(GrowWishes(bytes.draws));
  const auto lay_out = [&](const auto& rows_memory, const auto& wishes_memory) {
    Arena rows(rows_memory.data(), rows_memory.size());
    Arena wishes(wishes_memory.data(), wishes_memory.size());
    const StepInputs inputs(rows, is_one ? rows : wishes, plan.sizes());
    return Written{inputs, rows.used(), wishes.used(), is_one};
  };
  const Pinned& pinned = pinned_[static_cast<size_t>(slot)];
  plan.Write(lay_out(pinned.rows, pinned.wishes).device);
  return lay_out(rows_, wishes_);
}

Status StepBlocks::QueueCopy(const Written& inputs, int64_t slot) {
  const Pinned& pinned = pinned_[static_cast<size_t>(slot)];
  MOEBIUS_TRY(CopyAsync(rows_.data(), pinned.rows.data(), inputs.row_bytes, *stream_));
  return CopyAsync(wishes_.data(), pinned.wishes.data(), inputs.wish_bytes, *stream_);
}

}  // namespace moebius::engine
