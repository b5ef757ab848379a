#include "rank/placement_watch.h"

#include <utility>

namespace moebius::rank {

moe::PlacementState PlacementWatch::Read() const {
  moe::PlacementState state;
  state.start = start_;
  state.slots = start_;
  if (!board_) return state;
  state.is_moving = true;
  state.moves = board_->ReadStatus();
  state.epoch = static_cast<int64_t>(state.moves.epoch);
  if (auto layers = board_->ReadPlaces(); !layers.empty()) state.slots.layers = std::move(layers);
  return state;
}

std::shared_ptr<const moe::PlacementState> PlacementWatch::Now() {
  const std::lock_guard lock(mutex_);
  const int64_t epoch = board_ ? static_cast<int64_t>(board_->committable()) : 0;
  if (last_ == nullptr || last_->epoch != epoch) {
    last_ = std::make_shared<const moe::PlacementState>(Read());
  }
  return last_;
}

}  // namespace moebius::rank
