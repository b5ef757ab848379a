// Which expert each slot holds. The router speaks experts; everything after it speaks slots, the
// fixed containers that hold expert weights. Const once made; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace moebius::moe {

class Placement {
 public:
  Placement() = default;
  // One slot an expert, in order.
  static Placement Identity(int num_experts);
  // experts[s]: the expert of slot s, or negative for an empty slot. kInvalidArgument where an
  // expert is out of range or has no slot.
  static Result<Placement> Create(int num_experts, std::vector<int32_t> experts);

  int num_experts() const { return static_cast<int>(first_slot_.size()) - 1; }
  int num_slots() const { return static_cast<int>(experts_.size()); }
  // Negative: the slot is empty.
  ExpertId expert(SlotId slot) const { return ExpertId(experts_[slot.Index()]); }
  // The slots of an expert, ascending; at least one.
  std::span<const int32_t> slots(ExpertId expert) const {
    const auto begin = static_cast<size_t>(first_slot_[expert.Index()]);
    return std::span(slots_).subspan(begin,
                                     static_cast<size_t>(first_slot_[expert.Index() + 1]) - begin);
  }

 private:
  std::vector<int32_t> experts_;     // by slot
  std::vector<int32_t> first_slot_;  // by expert, one more at the end: where its slots begin
  std::vector<int32_t> slots_;
};

// What each slot of a layer holds before anything is balanced, [ranks * slots a rank]: experts
// contiguous and as even as they go, the first ranks one more. Slots beyond one an expert, as even
// too, go on with those of the next rank. Where a rank has fewer slots than the first one its last
// place is empty (negative). num_slots 0: one an expert.
std::vector<int32_t> LinearSlots(int64_t num_experts, int num_ranks, int64_t num_slots = 0);

// The slots of a deployment's layers.
struct SlotAssignment {
  int64_t num_slots = 0;  // of a layer; 0: one an expert
  // By MoE layer, [ranks * slots a rank] each, as in LinearSlots; what is not there: LinearSlots.
  std::vector<std::vector<int32_t>> layers;

  std::vector<int32_t> Of(int layer, int64_t num_experts, int num_ranks) const {
    if (static_cast<size_t>(layer) < layers.size()) return layers[static_cast<size_t>(layer)];
    return LinearSlots(num_experts, num_ranks, num_slots);
  }
};

// What balancing has done since the start.
struct BalanceStatus {
  uint64_t epoch = 0;  // of the last committed plan
  int64_t num_committed = 0;
  int64_t num_dropped = 0;
  int64_t num_slots = 0;     // that got other weights, of committed plans
  int64_t num_bytes = 0;     // that were fetched, also for plans that were dropped
  double seconds = 0;        // that plans were under way
  int64_t num_steps = 0;     // that ran meanwhile
  double stall_seconds = 0;  // that steps waited for committed plans: the slowest rank's of each
  // Experts by where they were fetched from.
  int64_t from_same_rank = 0;
  int64_t from_peer = 0;
  int64_t from_pool = 0;
  int64_t from_checkpoint = 0;
  int64_t num_corrupt = 0;  // pieces that came with a wrong checksum
  std::string last_drop;    // why
};

// The slots that steps use now; every change of them has a number of its own.
struct PlacementState {
  int64_t epoch = 0;
  SlotAssignment slots = {};
  SlotAssignment start = {};  // of epoch 0
  bool is_moving = false;     // experts move between slots
  BalanceStatus moves = {};
};

}  // namespace moebius::moe
