#include "moe/slot_table.h"

#include <cmath>

namespace moebius::moe {
namespace {

// Where the copies' shares end on the scale of a hash.
void AppendBounds(std::span<const int32_t> slots, std::span<const double> weights,
                  std::vector<uint32_t>* until) {
  const auto weight_of = [&](int32_t slot) {
    return weights.empty() ? 1.0 : weights[static_cast<size_t>(slot)];
  };
  double all = 0;
  for (const int32_t slot : slots) all += weight_of(slot);
  double sum = 0;
  for (const int32_t slot : slots) {
    sum += weight_of(slot);
    until->push_back(all > 0 ? static_cast<uint32_t>(std::floor(sum / all * UINT32_MAX)) : 0);
  }
  until->back() = UINT32_MAX;
}

}  // namespace

SlotTable::SlotTable(const Placement& placement, int slots_per_rank, int home,
                     std::span<const double> weights)
    : slots_per_rank_(slots_per_rank), home_(home) {
  begin_.push_back(0);
  for (int32_t e = 0; e < placement.num_experts(); ++e) {
    const std::span<const int32_t> slots = placement.slots(ExpertId(e));
    has_copies_ = has_copies_ || slots.size() > 1;
    first_slot_.push_back(slots.front());
    slots_.insert(slots_.end(), slots.begin(), slots.end());
    begin_.push_back(static_cast<int32_t>(slots_.size()));
    AppendBounds(slots, weights, &until_);
  }
}

kernels::ReplicaTable SlotTable::copies() const {
  return {.begin = begin_,
          .slots = slots_,
          .until = until_,
          .slots_per_rank = slots_per_rank_,
          .home = home_};
}

}  // namespace moebius::moe
