#include "serve/expert_balance.h"

#include <gtest/gtest.h>

namespace moebius::serve {
namespace {

using Tokens = std::vector<int64_t>;

ExpertLoad Window(const Tokens& counts) {
  ExpertLoad load;
  load.counts = moe::ExpertStats(1, static_cast<int>(counts.size()));
  std::ranges::copy(counts, load.counts.counts().begin());
  return load;
}

std::vector<int32_t> Starved(const ExpertLoad& window) {
  return BalanceOf(window, {}, 0)[0].experts.starved;
}

TEST(BalanceOf, AnExpertIsStarvedWhereItIsInAllWindows) {
  ExpertLoad window = Window({0, 0, 500, 500});
  EXPECT_EQ(Starved(window), (std::vector<int32_t>{0, 1}));
  window.earlier = {Window({0, 300, 300, 300}).counts};
  EXPECT_EQ(Starved(window), (std::vector<int32_t>{0}));
  // An hour without requests says nothing of experts.
  window.earlier = {Window({0, 0, 0, 0}).counts};
  EXPECT_EQ(Starved(window), (std::vector<int32_t>{0, 1}));
}

TEST(BalanceOf, AFewTokensAreNotJudged) {
  const LayerBalance few = BalanceOf(Window({0, 0, 0, 0, 0, 0, 0, 0, 99 * 10, 0}), {}, 0)[0];
  EXPECT_TRUE(few.experts.starved.empty());
  EXPECT_TRUE(few.experts.dominant.empty());
  EXPECT_FALSE(few.has_collapsed);
  EXPECT_EQ(few.experts.max_over_mean, 10);
  const LayerBalance enough = BalanceOf(Window({0, 0, 0, 0, 0, 0, 0, 0, 100 * 10, 0}), {}, 0)[0];
  EXPECT_EQ(enough.experts.starved.size(), 9u);
  EXPECT_EQ(enough.experts.dominant, (std::vector<int32_t>{8}));
  EXPECT_EQ(enough.collapse_index, 0.9);
  EXPECT_TRUE(enough.has_collapsed);
}

TEST(BalanceOf, GainIsAgainstOneSlotAnExpertInOrder) {
  // Two ranks; the hot expert has a copy on each.
  const moe::SlotAssignment slots{.num_slots = 4, .layers = {{0, 1, 0, 2}}};
  const LayerBalance balance = BalanceOf(Window({600, 100, 100}), slots, 2)[0];
  EXPECT_EQ(balance.ranks.imbalance(), 1);
  EXPECT_EQ(balance.ranks_in_order.imbalance(), 1.75);
  EXPECT_EQ(balance.gain(), 1.75);
  EXPECT_EQ(BalanceOf(Window({0, 0, 0}), slots, 2)[0].gain(), 0);
}

}  // namespace
}  // namespace moebius::serve
