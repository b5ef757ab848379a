#include "moe/balance/locality.h"

#include <gtest/gtest.h>

#include <numeric>

#include "moe/balance/load_trace.h"

namespace moebius::moe {
namespace {

TEST(Locality, DrawsDifferentExpertsByLoad) {
  const std::vector<double> load = {6, 3, 0, 1};
  const std::vector<int32_t> choices = DrawTopK(load, 1000, 2, 1);
  ASSERT_EQ(choices.size(), 2000u);
  for (size_t i = 0; i < choices.size(); i += 2) EXPECT_NE(choices[i], choices[i + 1]);
  EXPECT_EQ(DrawTopK(load, 1000, 2, 1), choices);
  const std::vector<double> counts = CountChoices(choices, 4);
  EXPECT_EQ(counts[2], 0);
  // Of two draws: 6/10 + 3/10 x 6/7 + 1/10 x 6/9 have expert 0.
  EXPECT_NEAR(counts[0], 924, 30);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 2000);
}

// Experts 0 and 1 on both ranks, 2 on rank 0 and 3 on rank 1; tokens of ranks 0, 1, 0 and 1.
TEST(Locality, CountsByHand) {
  const SlotShape shape{.num_experts = 4, .num_slots = 6, .num_ranks = 2};
  const std::vector<int32_t> experts = {0, 1, 2, 0, 1, 3};
  const std::vector<int32_t> choices = {0, 1, 0, 1, 3, 0, 3, 1};
  const auto nearest = MeasureLocality(shape, experts, choices, 2, CopyRule::kNearest);
  ASSERT_TRUE(nearest) << nearest.error().message();
  // The third token is at home with expert 0 and must go to rank 1 for expert 3.
  EXPECT_EQ(nearest->distinct_ranks, 1.25);
  EXPECT_EQ(nearest->remote_copies, 0.25);
  EXPECT_EQ(nearest->rank_imbalance, 0.25);  // 3 and 5 choices
  // Rank 0's second choice of expert 0 falls to rank 1, rank 1's of expert 1 to rank 0.
  const auto turns = MeasureLocality(shape, experts, choices, 2, CopyRule::kRoundRobin);
  ASSERT_TRUE(turns) << turns.error().message();
  EXPECT_EQ(turns->distinct_ranks, 1.25);
  EXPECT_EQ(turns->remote_copies, 0.5);
  EXPECT_FALSE(MeasureLocality(shape, std::vector<int32_t>{0, 1, 2, 0, 1, 2}, choices, 2,
                               CopyRule::kNearest));
}

// DeepSeek-R1's shape and skew on 4 ranks: to how many others a token is sent by our rule and by
// turns, mean of layers.
TEST(Locality, OurRuleSendsFewerCopies) {
  constexpr int kLayers = 4;
  constexpr int kTokens = 2000;
  const SlotShape shape{.num_experts = 256, .num_slots = 288, .num_ranks = 4};
  const std::vector<double> popularity = SyntheticLoads(kLayers, 256, 1.2, 0).Popularity();
  double nearest = 0;
  double turns = 0;
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    const auto load = std::span(popularity).subspan(layer * 256, 256);
    const std::vector<double> past = CountChoices(DrawTopK(load, kTokens, 8, layer), 256);
    const auto experts = PlanLayer(BalancePolicy::kImprove, shape, past, {});
    ASSERT_TRUE(experts) << experts.error().message();
    const std::vector<int32_t> choices = DrawTopK(load, kTokens, 8, layer + 100);
    const auto of = [&](CopyRule rule) {
      return MeasureLocality(shape, *experts, choices, 8, rule).value();
    };
    nearest += of(CopyRule::kNearest).remote_copies / kLayers;
    turns += of(CopyRule::kRoundRobin).remote_copies / kLayers;
    EXPECT_LT(of(CopyRule::kNearest).rank_imbalance, 0.05);
  }
  EXPECT_LE(nearest, 2.25);
  EXPECT_NEAR(turns, 2.71, 0.03);
}

}  // namespace
}  // namespace moebius::moe
