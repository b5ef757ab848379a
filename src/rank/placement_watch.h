// Where the experts of a deployment are, read from the memory that its ranks share: for metrics and
// step logs, beside the steps.
#pragma once

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
  // The same but for what has been moved, made anew where the epoch has changed. Any thread.
  std::shared_ptr<const moe::PlacementState> Now();

 private:
  const moe::SlotAssignment start_;
  const std::optional<BalanceBoard> board_;
  std::mutex mutex_;
  std::shared_ptr<const moe::PlacementState> last_;
};

}  // namespace moebius::rank
