// Which expert each slot holds. The router speaks experts; everything after it speaks slots, the
// fixed containers that hold expert weights. Const once made; any thread.
#pragma once

#include <cstdint>
#include <span>
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

// The slot that serves each (token, choice) pair: the first copy (one rank holds all slots).
void ChooseSlots(const Placement& placement, std::span<const int32_t> experts,
                 std::span<int32_t> slots);

}  // namespace moebius::moe
