// Where the slots of a deployment's MoE layers are, and what they hold at the start. A value.
#pragma once

#include <cstddef>
#include <vector>

#include "moe/balance/policy.h"

namespace moebius::rank {

struct BalanceLayout {
  moe::SlotShape slots;
  // By layer: the world rank of each member of the expert group, in the order of their places.
  std::vector<std::vector<int>> ranks;
  std::vector<moe::SlotList> experts;  // by layer, of epoch 0

  int num_layers() const { return static_cast<int>(experts.size()); }
  int WorldRankOf(int layer, int place) const {
    const auto member = static_cast<size_t>(place / slots.places_per_rank());
    return ranks[static_cast<size_t>(layer)][member];
  }
};

}  // namespace moebius::rank
