// How the work is spread over the ranks of a deployment: one MoE layer waits for the rank whose
// experts got most tokens. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/rank_load.h"
#include "serve/metrics_experts.h"

namespace moebius::serve {

// Ranks that whole experts are spread over; 0: they are not, or nobody says.
int NumExpertRanks(std::span<const engine::RankLoad> ranks);

// Of one layer: the tokens (times experts a token) that each of those ranks computed. counts: by
// expert; the ranks hold them as model::LinearSlots places them.
std::vector<int64_t> TokensOfExpertRanks(std::span<const int64_t> counts, int num_ranks);

// The same of every layer in the window; empty where experts are not spread.
std::vector<ExpertSpread> RankSpreads(const ExpertLoad& window,
                                      std::span<const engine::RankLoad> ranks);

}  // namespace moebius::serve
