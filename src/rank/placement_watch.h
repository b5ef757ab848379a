// Where the experts of a deployment are, read from the memory that its ranks share: for metrics and
// step logs, beside the steps.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "moe/placement.h"
#include "rank/balance_board.h"

namespace moebius::rank {

class PlacementWatch {
 public:
  // start: what the deployment began with. board: its memory outlives this; none: experts stay.
  PlacementWatch(moe::SlotAssignment start, const std::optional<BalanceBoard>& board)
      : start_(std::move(start)), board_(board) {}

  // As of a moment ago. Any thread.
  moe::PlacementState Read() const;
  // The slots of that epoch, without what has been moved; null: too many have come since. Any
  // thread.
  std::shared_ptr<const moe::PlacementState> Of(int64_t epoch);

 private:
  // Nothing where the epoch's lists are no longer kept.
  std::optional<moe::SlotAssignment> SlotsOf(int64_t epoch) const;

  const moe::SlotAssignment start_;
  const std::optional<BalanceBoard> board_;
  std::mutex mutex_;
  // The newest that were asked for, the last one first: data-parallel ranks say their steps in
  // turn.
  std::deque<std::shared_ptr<const moe::PlacementState>> known_;
};

}  // namespace moebius::rank
