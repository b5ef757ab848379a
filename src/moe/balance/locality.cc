#include "moe/balance/locality.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/ops.h"
#include "moe/slot_table.h"

namespace moebius::moe {
namespace {

constexpr int64_t kChoicesOfABlock = 1024;

// What one rank routes: its tokens' choices, and a slot for each.
struct HomeBatch {
  int home = 0;
  int top_k = 1;
  std::vector<int32_t> choices;
  std::vector<int32_t> slots;
};

void ChooseNearest(const Placement& placement, int slots_per_rank, HomeBatch& batch) {
  const SlotTable table(placement, slots_per_rank, batch.home);
  // The hash only needs rows that differ.
  std::vector<TokenId> tokens(batch.choices.size() / static_cast<size_t>(batch.top_k));
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::vector<Position> positions(tokens.size(), batch.home);
  kernels::ExecContext ctx{.backend = &kernels::RefBackend()};
  kernels::ChooseSlots(ctx, {.experts = batch.choices,
                             .tokens = tokens,
                             .k = batch.top_k,
                             .choice = {.first_slot = table.first_slot(),
                                        .counts = {},
                                        .prompt_counts = {},
                                        .replicas = table.replicas(),
                                        .positions = positions},
                             .slots = batch.slots});
}

void ChooseInTurn(const Placement& placement, HomeBatch& batch) {
  std::vector<int64_t> ordinals;
  for (size_t i = 0; i < batch.choices.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (at % kChoicesOfABlock == 0) {
      ordinals.assign(static_cast<size_t>(placement.num_experts()),
                      at / kChoicesOfABlock + batch.home);
    }
    const auto slots = placement.slots(ExpertId(batch.choices[i]));
    int64_t& ordinal = ordinals[static_cast<size_t>(batch.choices[i])];
    batch.slots[i] = slots[static_cast<size_t>(ordinal++) % slots.size()];
  }
}

HomeBatch BatchOf(int home, int num_ranks, std::span<const int32_t> choices, int top_k) {
  HomeBatch batch{.home = home, .top_k = top_k, .choices = {}, .slots = {}};
  const auto k = static_cast<size_t>(top_k);
  for (auto t = static_cast<size_t>(home); t < choices.size() / k;
       t += static_cast<size_t>(num_ranks)) {
    const auto row = choices.subspan(t * k, k);
    batch.choices.insert(batch.choices.end(), row.begin(), row.end());
  }
  batch.slots.resize(batch.choices.size());
  return batch;
}

}  // namespace

std::vector<int32_t> DrawTopK(std::span<const double> load, int64_t num_tokens, int top_k,
                              uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::pair<double, int32_t>> scores(load.size());
  std::vector<int32_t> choices;
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (size_t e = 0; e < load.size(); ++e) {
      const double u = (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;
      // The smallest of these has the largest log load + Gumbel noise.
      const double score =
          load[e] > 0 ? -std::log(u) / load[e] : std::numeric_limits<double>::infinity();
      scores[e] = {score, static_cast<int32_t>(e)};
    }
    std::ranges::partial_sort(scores, scores.begin() + top_k);
    MOEBIUS_CHECK(std::isfinite(scores[static_cast<size_t>(top_k) - 1].first));
    for (int j = 0; j < top_k; ++j) choices.push_back(scores[static_cast<size_t>(j)].second);
  }
  return choices;
}

std::vector<double> CountChoices(std::span<const int32_t> choices, int num_experts) {
  std::vector<double> counts(static_cast<size_t>(num_experts));
  for (const int32_t expert : choices) ++counts[static_cast<size_t>(expert)];
  return counts;
}

Result<Locality> MeasureLocality(const SlotShape& shape, std::span<const int32_t> experts,
                                 std::span<const int32_t> choices, int top_k, CopyRule rule) {
  MOEBIUS_TRY(CheckShape(shape));
  MOEBIUS_ASSIGN(const Placement placement,
                 Placement::Create(shape.num_experts, {experts.begin(), experts.end()}));
  const int slots_per_rank = shape.places_per_rank();
  std::vector<double> loads(static_cast<size_t>(shape.num_ranks));
  Locality sums;
  for (int home = 0; home < shape.num_ranks; ++home) {
    HomeBatch batch = BatchOf(home, shape.num_ranks, choices, top_k);
    if (rule == CopyRule::kNearest) {
      ChooseNearest(placement, slots_per_rank, batch);
    } else {
      ChooseInTurn(placement, batch);
    }
    std::vector<int> ranks(static_cast<size_t>(top_k));
    for (size_t first = 0; first < batch.slots.size(); first += static_cast<size_t>(top_k)) {
      for (size_t j = 0; j < ranks.size(); ++j) {
        ranks[j] = batch.slots[first + j] / slots_per_rank;
        ++loads[static_cast<size_t>(ranks[j])];
      }
      std::ranges::sort(ranks);
      const auto distinct = std::ranges::unique(ranks).begin() - ranks.begin();
      const auto end = ranks.begin() + distinct;
      sums.distinct_ranks += static_cast<double>(distinct);
      sums.remote_copies +=
          static_cast<double>(distinct - std::count(ranks.begin(), end, batch.home));
    }
  }
  const double num_tokens = static_cast<double>(choices.size()) / top_k;
  return Locality{.distinct_ranks = sums.distinct_ranks / num_tokens,
                  .remote_copies = sums.remote_copies / num_tokens,
                  .rank_imbalance = Imbalance(loads)};
}

}  // namespace moebius::moe
