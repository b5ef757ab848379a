#include "moe/balance/cost.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moebius::moe {
namespace {

TEST(ExpertCost, ProbabilityActiveIsOneMinusExp) {
  for (const double rows : {1e-12, 1e-3, 0.1, 0.3, 1.0, 2.5, 7.0, 39.0}) {
    EXPECT_NEAR(ProbabilityActive(rows) / -std::expm1(-rows), 1, 1e-14) << rows;
  }
  EXPECT_EQ(ProbabilityActive(0), 0);
  EXPECT_EQ(ProbabilityActive(100), 1);
}

TEST(ExpertCost, WholeTilesAndWeights) {
  const ExpertCost cost{.tile_rows = 64, .seconds_per_row = 2, .seconds_per_active_expert = 1000};
  EXPECT_DOUBLE_EQ(SlotSeconds(cost, 64), 1128);
  EXPECT_DOUBLE_EQ(SlotSeconds(cost, 65), 1256);
  EXPECT_DOUBLE_EQ(SlotSeconds(cost, 0), 0);
  // One of a hundred steps has a row, which takes a tile.
  EXPECT_NEAR(SlotSeconds(cost, 0.01), 11.28, 0.06);
}

TEST(ExpertCost, WeightsInTheTimeOfRows) {
  // 1000 parameters of 2 bytes: read in the time of 16000 operations, of which a row takes 2000.
  const ExpertCost cost = CostInRows(2000, 2000, 8);
  EXPECT_EQ(cost.seconds_per_row, 1);
  EXPECT_EQ(cost.seconds_per_active_expert, 8);
  for (const ExpertCost& rows : {CostInRows(2000, 2000, 0), CostInRows(0, 0, 8)}) {
    EXPECT_EQ(rows.seconds_per_active_expert, 0);
    EXPECT_DOUBLE_EQ(SlotSeconds(rows, 0.3), 0.3);
    EXPECT_DOUBLE_EQ(SlotSeconds(rows, 30), 30);
  }
}

TEST(ExpertCost, OfRanks) {
  const SlotShape shape{.num_experts = 2, .num_slots = 3, .num_ranks = 2};
  const ExpertCost cost{.seconds_per_row = 1};
  const SlotList list = {0, -1, 0, 1};
  const std::vector<double> load = {3, 1};  // 800 rows: 300 a copy of expert 0, 200 of expert 1
  EXPECT_EQ(RankSeconds(cost, shape, load, list, 800), (std::vector<double>{300, 500}));
  EXPECT_EQ(LayerSeconds(cost, shape, load, list, 800), 500);
  EXPECT_EQ(LayerSeconds(cost, shape, std::vector<double>{0, 0}, list, 800), 0);
}

}  // namespace
}  // namespace moebius::moe
