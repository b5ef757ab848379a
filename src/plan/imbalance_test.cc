#include "plan/imbalance.h"

#include <gtest/gtest.h>

#include "plan/measured.h"

namespace moebius::plan {
namespace {

ExpertLoads Loads(const Imbalance& imbalance, int ranks, int64_t slots_per_rank, int64_t experts,
                  int64_t top_k) {
  return ExpertLoads(imbalance, experts, top_k,
                     std::vector<int64_t>(static_cast<size_t>(ranks), slots_per_rank));
}

// 4096 tokens of 8 experts on 32 ranks: 1024 assignments a rank, the busiest 2.07 deviations above.
TEST(Imbalance, ChanceAloneOnUniformLoad) {
  EXPECT_NEAR(Loads({}, 32, 8, 256, 8).BusiestRank(4096), 1.065, 0.003);
  EXPECT_NEAR(Loads({}, 32, 8, 256, 8).BusiestRank(1 << 30), 1, 1e-3);
}

TEST(Imbalance, OneTokenLoadsAsManyRanksAsItHasExperts) {
  // 8 assignments over 64 ranks: the mean is 1/8, and a rank gets one or more.
  const double busiest = Loads({}, 64, 4, 256, 8).BusiestRank(1);
  EXPECT_GE(busiest, 7.5);
  EXPECT_LE(busiest, 64);
}

// TensorRT-LLM's readings of DeepSeek-R1: 2.56 without EPLB on 32 ranks, 1.109 with 288 slots.
TEST(Imbalance, DeepSeekWithAndWithoutBalancing) {
  Imbalance skew;
  skew.zipf = kDeepSeekZipf;
  EXPECT_NEAR(Loads(skew, 32, 8, 256, 8).BusiestRank(1 << 20), 2.56, 0.5);
  skew.balanced = true;
  EXPECT_NEAR(Loads(skew, 32, 9, 256, 8).BusiestRank(1 << 20), 1.109, 0.02);
  EXPECT_NEAR(Loads(skew, 36, 8, 256, 8).BusiestRank(1 << 20), 1.115, 0.02);
}

TEST(Imbalance, RecordedCountsReplaceZipf) {
  Imbalance recorded;
  recorded.counts = {70, 10, 10, 10};
  EXPECT_NEAR(Loads(recorded, 2, 2, 4, 1).BusiestRank(1 << 30), 1.6, 1e-3);
  recorded.balanced = true;  // 70 alone, its copy with the rest: 35 + 10, 35 + 20 of 50
  EXPECT_NEAR(Loads(recorded, 2, 3, 4, 1).BusiestRank(1 << 30), 1.1, 0.1);
}

TEST(Imbalance, NoExpertGetsMoreThanOneAssignmentOfAToken) {
  Imbalance extreme;
  extreme.zipf = 6;
  // Without the limit one of four ranks would get nearly all 8 assignments; it can get 1 + those of
  // its other experts.
  EXPECT_LT(Loads(extreme, 4, 8, 32, 8).BusiestRank(1 << 20), 4);
}

TEST(Imbalance, SlotsHitGrowWithTokens) {
  const ExpertLoads loads = Loads({}, 8, 32, 256, 8);
  EXPECT_NEAR(loads.SlotsHit(1, 1), 1, 0.02);
  EXPECT_NEAR(loads.SlotsHit(64, 1), 32 * (1 - 0.135), 0.1);  // 512 assignments: e^-2 are missed
  EXPECT_NEAR(loads.SlotsHit(4096, 1), 32, 1e-3);
}

TEST(Imbalance, LayoutsWithoutExpertParallelismHaveNone) {
  layout::ParallelLayout layout;
  Imbalance skew;
  skew.zipf = 1;
  EXPECT_EQ(BusiestRank(skew, layout, 256, 8, 64), 1);
}

}  // namespace
}  // namespace moebius::plan
