#include "moe/slot_table.h"

namespace moebius::moe {

SlotTable::SlotTable(const Placement& placement, int slots_per_rank, int home)
    : slots_per_rank_(slots_per_rank), home_(home) {
  begin_.push_back(0);
  for (int32_t e = 0; e < placement.num_experts(); ++e) {
    const std::span<const int32_t> slots = placement.slots(ExpertId(e));
    has_copies_ = has_copies_ || slots.size() > 1;
    first_slot_.push_back(slots.front());
    slots_.insert(slots_.end(), slots.begin(), slots.end());
    begin_.push_back(static_cast<int32_t>(slots_.size()));
  }
}

kernels::ReplicaTable SlotTable::copies() const {
  return {.begin = begin_, .slots = slots_, .slots_per_rank = slots_per_rank_, .home = home_};
}

}  // namespace moebius::moe
