#include "moe/placement.h"

#include <numeric>

namespace moebius::moe {

Placement Placement::Identity(int num_experts) {
  std::vector<int32_t> experts(static_cast<size_t>(num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  return *Create(num_experts, std::move(experts));
}

Result<Placement> Placement::Create(int num_experts, std::vector<int32_t> experts) {
  std::vector<int32_t> copies(static_cast<size_t>(num_experts));
  for (size_t s = 0; s < experts.size(); ++s) {
    if (experts[s] >= num_experts) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "placement: slot {} holds expert {}, expected one below {}", s, experts[s],
                       num_experts);
    }
    if (experts[s] >= 0) ++copies[static_cast<size_t>(experts[s])];
  }
  Placement placement;
  placement.first_slot_.assign(1, 0);
  for (size_t e = 0; e < copies.size(); ++e) {
    if (copies[e] == 0) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "placement: expert {} has no slot, expected at least one", e);
    }
    placement.first_slot_.push_back(placement.first_slot_.back() + copies[e]);
  }
  placement.slots_.resize(static_cast<size_t>(placement.first_slot_.back()));
  std::vector<int32_t> next(placement.first_slot_.begin(), placement.first_slot_.end() - 1);
  for (size_t s = 0; s < experts.size(); ++s) {
    if (experts[s] < 0) continue;
    int32_t& place = next[static_cast<size_t>(experts[s])];
    placement.slots_[static_cast<size_t>(place++)] = static_cast<int32_t>(s);
  }
  placement.experts_ = std::move(experts);
  return placement;
}

void ChooseSlots(const Placement& placement, std::span<const int32_t> experts,
                 std::span<int32_t> slots) {
  for (size_t p = 0; p < experts.size(); ++p) {
    slots[p] = placement.slots(ExpertId(experts[p])).front();
  }
}

}  // namespace moebius::moe
