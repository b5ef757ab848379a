// How much of an expert's load each of its copies should get. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/balance/policy.h"

namespace moebius::moe {

// By place: the fraction of its expert's load that this copy should get so that the loads of ranks
// are level; they sum to 1 over an expert's places. Empty places have 0, copies on one rank and
// those of an expert without load have equal fractions.
std::vector<double> ShareWeights(const SlotShape& shape, std::span<const double> load,
                                 std::span<const int32_t> experts);

// RankLoads with these fractions instead of equal ones.
std::vector<double> WeightedRankLoads(const SlotShape& shape, std::span<const double> load,
                                      std::span<const int32_t> experts,
                                      std::span<const double> weights);

}  // namespace moebius::moe
