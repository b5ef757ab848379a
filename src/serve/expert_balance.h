// How evenly one MoE layer's tokens fell on its experts and, as the experts are placed, on ranks:
// one layer waits for the rank whose experts got most. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/rank_load.h"
#include "moe/balance/load_metrics.h"
#include "moe/placement.h"
#include "serve/metrics_experts.h"

namespace moebius::serve {

// Ranks that whole experts are spread over; 0: they are not, or nobody says.
int NumExpertRanks(std::span<const engine::RankLoad> ranks);

// With fewer tokens an expert chance alone starves and favours some: none is said to be.
inline constexpr double kTokensToJudge = 100;

struct LayerBalance {
  // starved: in every one of the last windows that can be judged.
  moe::LoadMetrics experts;
  int64_t num_active = 0;  // experts that got a token
  double collapse_index = 0;
  bool has_collapsed = false;
  // Over ranks; empty where whole experts are not spread.
  ExpertSpread ranks;
  ExpertSpread decode_ranks;
  ExpertSpread prompt_ranks;
  ExpertSpread ranks_in_order;  // with one slot an expert, in order
  // How much more even ranks are than those: 1: no more; 0: no tokens.
  double gain() const {
    return ranks.imbalance() > 0 ? ranks_in_order.imbalance() / ranks.imbalance() : 0;
  }
};
// Of each layer in the window.
std::vector<LayerBalance> BalanceOf(const ExpertLoad& window, const moe::SlotAssignment& slots,
                                    int num_ranks);

// Of a layer, from the tokens of its experts: the share of them that would have got any if each
// token took its experts at random.
double ExpectedEffectiveRatio(std::span<const int64_t> counts, int64_t experts_per_token);

// Of all ranks, since the start.
ExpertRows RowsOf(std::span<const engine::RankLoad> ranks);
// Of all rows, `some`; 0: there were none.
double ShareOf(int64_t some, const ExpertRows& rows);

}  // namespace moebius::serve
