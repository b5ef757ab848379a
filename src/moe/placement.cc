#include "moe/placement.h"

#include <algorithm>
#include <numeric>
#include <utility>

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

namespace {

// Piece `part` of `count` things in `parts`, as even as they go: the first ones have one more.
std::pair<int64_t, int64_t> EvenPiece(int64_t count, int64_t parts, int64_t part) {
  const int64_t more = count % parts;
  return {count / parts * part + std::min(part, more), count / parts + (part < more ? 1 : 0)};
}

}  // namespace

std::vector<int32_t> LinearSlots(int64_t num_experts, int num_ranks, int64_t num_slots) {
  if (num_slots == 0) num_slots = num_experts;
  const int64_t places = (num_slots + num_ranks - 1) / num_ranks;
  std::vector<int32_t> slots;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int64_t first = EvenPiece(num_experts, num_ranks, rank).first;
    const int64_t count = EvenPiece(num_slots, num_ranks, rank).second;
    for (int64_t i = 0; i < places; ++i) {
      slots.push_back(i < count ? static_cast<int32_t>((first + i) % num_experts) : -1);
    }
  }
  return slots;
}

}  // namespace moebius::moe
