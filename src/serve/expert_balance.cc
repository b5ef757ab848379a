#include "serve/expert_balance.h"

#include <algorithm>

#include "moe/balance/policy.h"

namespace moebius::serve {
namespace {

// What the experts of a layer look like over the windows that hold enough tokens.
moe::LoadMetrics JudgeExperts(const ExpertLoad& window, int layer) {
  moe::LoadMetrics metrics = moe::Measure(window.Layer(layer));
  metrics.starved.clear();
  if (metrics.mean < kTokensToJudge) {
    metrics.dominant.clear();
    return metrics;
  }
  std::vector<std::vector<double>> windows;
  const auto add = [&](const moe::ExpertStats& counts) {
    const std::span<const int64_t> of_layer = counts.Layer(layer);
    if (SpreadOf(of_layer).mean < kTokensToJudge) return;
    windows.emplace_back(of_layer.begin(), of_layer.end());
  };
  for (size_t i = window.earlier.size(); i-- > 0;) {
    if (window.earlier[i].num_layers() > layer) add(window.earlier[i]);
  }
  add(window.counts);
  metrics.starved = moe::StarvedExperts(windows);
  return metrics;
}

}  // namespace

int NumExpertRanks(std::span<const engine::RankLoad> ranks) {
  int most = -1;
  for (const engine::RankLoad& load : ranks) most = std::max(most, load.expert_rank);
  return most + 1;
}

std::vector<LayerBalance> BalanceOf(const ExpertLoad& window, const moe::SlotAssignment& slots,
                                    int num_ranks) {
  std::vector<LayerBalance> layers;
  const auto num_experts = static_cast<size_t>(window.num_experts());
  for (int layer = 0; layer < window.num_layers(); ++layer) {
    LayerBalance& balance = layers.emplace_back();
    balance.experts = JudgeExperts(window, layer);
    balance.num_active = SpreadOf(window.Layer(layer)).num_active;
    balance.collapse_index = balance.experts.StarvedShare(num_experts);
    balance.has_collapsed =
        balance.experts.mean >= kTokensToJudge && balance.experts.HasCollapsed(num_experts);
    if (num_ranks == 0) continue;
    const auto spread = [&](std::span<const int64_t> counts, std::span<const int32_t> placed) {
      return SpreadOf(moe::RankLoads(num_ranks, counts, placed));
    };
    const std::vector<int32_t> placed = slots.Of(layer, window.num_experts(), num_ranks);
    balance.ranks = spread(window.Layer(layer), placed);
    balance.decode_ranks = spread(DecodeCounts(window.counts, layer), placed);
    balance.prompt_ranks = spread(window.counts.PromptLayer(layer), placed);
    balance.ranks_in_order =
        spread(window.Layer(layer), moe::LinearSlots(window.num_experts(), num_ranks));
  }
  return layers;
}

double ExpectedEffectiveRatio(std::span<const int64_t> counts, int64_t experts_per_token) {
  if (experts_per_token == 0) return 0;
  const double tokens =
      static_cast<double>(SpreadOf(counts).total) / static_cast<double>(experts_per_token);
  return moe::ExpectedActiveShare(std::ssize(counts), experts_per_token, tokens);
}

ExpertRows RowsOf(std::span<const engine::RankLoad> ranks) {
  ExpertRows rows;
  for (const engine::RankLoad& load : ranks) {
    rows.computed += load.num_expert_rows;
    rows.on_node += load.num_expert_rows;  // ranks share memory: all are on one machine
    rows.at_home += load.num_home_rows;
    rows.by_copy += load.num_copy_rows;
  }
  return rows;
}

double ShareOf(int64_t some, const ExpertRows& rows) {
  return rows.computed > 0 ? static_cast<double>(some) / static_cast<double>(rows.computed) : 0;
}

}  // namespace moebius::serve
