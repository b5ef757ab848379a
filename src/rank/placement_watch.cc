#include "rank/placement_watch.h"

#include <utility>

namespace moebius::rank {

std::optional<moe::SlotAssignment> PlacementWatch::SlotsOf(int64_t epoch) const {
  moe::SlotAssignment slots = start_;
  std::vector<moe::SlotList> layers;
  if (board_) layers = board_->ReadPlaces(static_cast<uint64_t>(epoch));
  if (layers.empty() && epoch != 0) return std::nullopt;
  if (!layers.empty()) slots.layers = std::move(layers);
  return slots;
}

moe::PlacementState PlacementWatch::Read() const {
  moe::PlacementState state;
  state.start = start_;
  state.slots = start_;
  if (!board_) return state;
  state.is_moving = true;
  // What is committed has been shown, and stays for a while.
  std::optional<moe::SlotAssignment> slots;
  while (!slots) {
    state.moves = board_->ReadStatus();
    state.epoch = static_cast<int64_t>(state.moves.epoch);
    slots = SlotsOf(state.epoch);
  }
  state.slots = std::move(*slots);
  return state;
}

std::shared_ptr<const moe::PlacementState> PlacementWatch::Of(int64_t epoch) {
  constexpr size_t kMostKnown = 4;
  const std::lock_guard lock(mutex_);
  for (const auto& known : known_) {
    if (known->epoch == epoch) return known;
  }
  std::optional<moe::SlotAssignment> slots = SlotsOf(epoch);
  if (!slots) return nullptr;
  known_.push_front(std::make_shared<const moe::PlacementState>(
      moe::PlacementState{.epoch = epoch,
                          .slots = std::move(*slots),
                          .start = start_,
                          .is_moving = board_.has_value()}));
  if (known_.size() > kMostKnown) known_.pop_back();
  return known_.front();
}

}  // namespace moebius::rank
