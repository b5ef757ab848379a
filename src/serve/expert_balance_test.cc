#include "serve/expert_balance.h"

#include <gtest/gtest.h>

namespace moebius::serve {
namespace {

using Tokens = std::vector<int64_t>;

TEST(TokensOfExpertRanks, UnevenExpertsLieAsTheyArePlaced) {
  // 7 experts on 3 ranks: 3, 2 and 2.
  const Tokens counts = {1, 2, 3, 10, 20, 100, 200};
  const auto in_order = [&](size_t num_experts, int num_ranks) {
    const auto slots = moe::LinearSlots(static_cast<int64_t>(num_experts), num_ranks);
    return TokensOfExpertRanks({counts.data(), num_experts}, slots, num_ranks);
  };
  EXPECT_EQ(in_order(7, 3), (Tokens{6, 30, 300}));
  EXPECT_EQ(in_order(7, 1), (Tokens{336}));
  EXPECT_EQ(in_order(2, 4), (Tokens{1, 2, 0, 0}));
}

TEST(TokensOfExpertRanks, CopiesShareAndNoTokenIsLost) {
  const Tokens counts = {11, 4};
  const std::vector<int32_t> slots = {0, 1, 0, -1, 0, 1};
  EXPECT_EQ(TokensOfExpertRanks(counts, slots, 3), (Tokens{4 + 2, 4, 3 + 2}));
}

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
