#include "moe/balance/share_weights.h"

#include <gtest/gtest.h>

#include <random>

#include "moe/balance/load_trace.h"

namespace moebius::moe {
namespace {

TEST(ShareWeights, FillUpTheLighterRank) {
  // Rank 0 has 10 of its own, rank 1 has 30; the 40 of expert 0 make both 40.
  const SlotShape shape{.num_experts = 3, .num_slots = 4, .num_ranks = 2};
  const SlotList list = {0, 1, 2, 0};
  const std::vector<double> weights = ShareWeights(shape, std::vector<double>{40, 10, 30}, list);
  EXPECT_EQ(weights, (std::vector<double>{0.75, 1, 1, 0.25}));
  // Too little to level them: the heavier rank's copy gets nothing.
  EXPECT_EQ(ShareWeights(shape, std::vector<double>{10, 10, 30}, list),
            (std::vector<double>{1, 1, 1, 0}));
  EXPECT_EQ(ShareWeights(shape, std::vector<double>{0, 0, 0}, list),
            (std::vector<double>{0.5, 1, 1, 0.5}));
}

TEST(ShareWeights, LeaveOutTheHeavyRank) {
  // The 30 of expert 0 over 0, 10 and 100: a level of 20.
  const SlotShape shape{.num_experts = 4, .num_slots = 6, .num_ranks = 3};
  const std::vector<double> weights =
      ShareWeights(shape, std::vector<double>{30, 0, 10, 100}, SlotList{0, 1, 2, 0, 0, 3});
  EXPECT_DOUBLE_EQ(weights[0], 2.0 / 3);
  EXPECT_DOUBLE_EQ(weights[3], 1.0 / 3);
  EXPECT_EQ(weights[4], 0);
}

TEST(ShareWeights, PairsAndEmptyPlaces) {
  const SlotShape shape{.num_experts = 2, .num_slots = 5, .num_ranks = 2};
  const SlotList list = {0, 1, -1, 1, 0, 0};
  const std::vector<double> weights = ShareWeights(shape, std::vector<double>{8, 4}, list);
  EXPECT_EQ(weights[2], 0);
  EXPECT_DOUBLE_EQ(weights[0] + weights[4] + weights[5], 1);
  EXPECT_DOUBLE_EQ(weights[1] + weights[3], 1);
  EXPECT_DOUBLE_EQ(weights[4], weights[5]);
  const std::vector<double> loads =
      WeightedRankLoads(shape, std::vector<double>{8, 4}, list, weights);
  EXPECT_NEAR(loads[0], 6, 1e-4);
  EXPECT_NEAR(loads[1], 6, 1e-4);
}

TEST(ShareWeights, NeverWorseThanEqualShares) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int experts = 4 + static_cast<int>(random() % 30);
    const int slots = experts + static_cast<int>(random() % 20);
    const SlotShape shape{.num_experts = experts,
                          .num_slots = slots,
                          .num_ranks = 1 + static_cast<int>(random() % 8) % slots};
    SyntheticLoads loads(1, experts, 1.2, random());
    const SlotList list = InitialList(shape);
    const std::vector<double> load = loads.Popularity();
    const std::vector<double> weights = ShareWeights(shape, load, list);
    std::vector<double> sums(static_cast<size_t>(experts));
    for (size_t p = 0; p < list.size(); ++p) {
      EXPECT_GE(weights[p], 0);
      EXPECT_LE(weights[p], 1 + 1e-12);
      if (list[p] >= 0) sums[static_cast<size_t>(list[p])] += weights[p];
    }
    for (const double sum : sums) EXPECT_NEAR(sum, 1, 1e-12);
    EXPECT_LE(Imbalance(WeightedRankLoads(shape, load, list, weights)),
              Imbalance(RankLoads(shape, load, list)) + 1e-9);
  }
}

}  // namespace
}  // namespace moebius::moe
