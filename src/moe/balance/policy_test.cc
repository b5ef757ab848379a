#include "moe/balance/policy.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "moe/placement.h"

namespace moebius::moe {
namespace {

SlotList PlanOf(BalancePolicy policy, const SlotShape& shape, const std::vector<double>& load) {
  const auto list = PlanLayer(policy, shape, load, {});
  EXPECT_TRUE(list) << list.error().message();
  return list.value_or(SlotList());
}

std::string PlanError(BalancePolicy policy, const SlotShape& shape, const std::vector<double>& load,
                      const SlotList& present = {}, const ImproveOptions& options = {}) {
  const auto list = PlanLayer(policy, shape, load, present, options);
  EXPECT_FALSE(list);
  return list ? "" : list.error().message();
}

// The example of DeepSeek's EPLB.
TEST(PlanLayer, DeepSeekPublishedExample) {
  const SlotShape shape{
      .num_experts = 12, .num_slots = 16, .num_ranks = 8, .num_groups = 4, .num_nodes = 2};
  EXPECT_EQ(
      PlanOf(BalancePolicy::kDeepSeek, shape, {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}),
      (SlotList{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  EXPECT_EQ(PlanOf(BalancePolicy::kDeepSeek, shape,
                   {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}),
            (SlotList{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
}

TEST(PlanLayer, DeepSeekWithoutWholeGroupsIsGlobal) {
  const std::vector<double> load = {9, 1, 4, 4, 2, 7};
  const SlotShape global{.num_experts = 6, .num_slots = 8, .num_ranks = 4};
  SlotShape nodes = global;
  nodes.num_groups = 3;  // two nodes do not divide them
  nodes.num_nodes = 2;
  EXPECT_EQ(PlanOf(BalancePolicy::kDeepSeek, nodes, load),
            PlanOf(BalancePolicy::kDeepSeek, global, load));
}

TEST(PlanLayer, TrtllmWorkedExample) {
  const SlotShape shape{.num_experts = 6, .num_slots = 8, .num_ranks = 2};
  const std::vector<double> load = {60, 10, 30, 20, 40, 40};
  const SlotList list = PlanOf(BalancePolicy::kTrtllm, shape, load);
  EXPECT_EQ(list, (SlotList{4, 2, 5, 1, 0, 0, 3, 5}));
  EXPECT_EQ(RankLoads(shape.num_ranks, load, list), (std::vector<double>{100, 100}));
  EXPECT_EQ(NumSameRankCopies(shape, list), 1);
}

TEST(PlanLayer, TrtllmWithoutLoadSpreadsCopiesFromTheLowest) {
  const SlotShape shape{.num_experts = 3, .num_slots = 8, .num_ranks = 2};
  EXPECT_EQ(PlanOf(BalancePolicy::kTrtllm, shape, {0, 0, 0}), (SlotList{0, 0, 0, 1, 1, 1, 2, 2}));
  const SlotShape one_each{.num_experts = 4, .num_slots = 4, .num_ranks = 2};
  EXPECT_EQ(PlanOf(BalancePolicy::kTrtllm, one_each, {1, 2, 3, 4}), (SlotList{3, 0, 2, 1}));
}

TEST(PlanLayer, RefusesWhatItCannotPlanFor) {
  const SlotShape shape{.num_experts = 2, .num_slots = 3, .num_ranks = 2};
  EXPECT_EQ(PlanError(BalancePolicy::kTrtllm, shape, {1, 2}),
            "balance policy trtllm: 3 slots on 2 ranks, expected a multiple of the ranks");
  const SlotShape nodes{.num_experts = 2, .num_slots = 3, .num_ranks = 3, .num_nodes = 2};
  EXPECT_EQ(PlanError(BalancePolicy::kDeepSeek, nodes, {1, 2}),
            "balance policy deepseek: 3 ranks on 2 nodes, expected a multiple of the nodes");
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1}),
            "balance: 1 loads, expected one for each of 2 experts");
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1, -1}),
            "balance: expert 1 has load -1, expected a finite number of at least 0");
  PlanError(BalancePolicy::kImprove, shape, {1, std::numeric_limits<double>::quiet_NaN()});
  PlanError(BalancePolicy::kImprove, shape, {1e308, 1e308});
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1, 1}, {0, 1, 0}),
            "balance: the present list has 3 places, expected 4 (2 ranks of 2)");
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1, 1}, {0, 1, 0, 1}),
            "balance: place 3 of the present list is not empty, but rank 1 has 1 slots");
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1, 1}, {0, 1, 2, -1}),
            "balance: place 2 of the present list holds expert 2, expected one below 2");
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1, 1}, {0, 0, 0, -1}),
            "balance: expert 1 has no slot in the present list, expected at least one");
  EXPECT_EQ(PlanError(BalancePolicy::kImprove, shape, {1, 1}, {}, {.min_gain = -0.5}),
            "balance: min_gain is -0.5, expected 0 to 1000");
}

TEST(CheckShape, NamesTheWrongNumber) {
  const auto error = [](const SlotShape& shape) {
    const Status status = CheckShape(shape);
    return status ? std::string() : status.error().message();
  };
  EXPECT_EQ(error({.num_experts = 8, .num_slots = 9, .num_ranks = 4, .num_groups = 2}), "");
  EXPECT_EQ(error({.num_experts = 0}), "balance: the number of experts is 0, expected at least 1");
  EXPECT_EQ(error({.num_experts = 4, .num_slots = 3}),
            "balance: 3 slots, expected at least one for each of 4 experts");
  EXPECT_EQ(error({.num_experts = 2, .num_slots = 3, .num_ranks = 4}),
            "balance: 4 ranks, expected at most 3, the slots");
  EXPECT_EQ(error({.num_experts = 4, .num_slots = 4, .num_groups = 3}),
            "balance: 4 experts in 3 groups, expected a multiple of the groups");
}

TEST(ParsePolicy, ByName) {
  for (const auto policy :
       {BalancePolicy::kDeepSeek, BalancePolicy::kTrtllm, BalancePolicy::kImprove}) {
    EXPECT_EQ(ParsePolicy(PolicyName(policy)).value(), policy);
  }
  EXPECT_EQ(
      ParsePolicy("improv").error().message(),
      "balance policy 'improv', expected deepseek, trtllm or improve (did you mean improve?)");
}

TEST(PlanLayer, TakesLinearSlotsAsPresent) {
  for (int experts = 1; experts <= 14; ++experts) {
    for (int slots = experts; slots <= 16; ++slots) {
      for (int ranks = 1; ranks <= slots; ++ranks) {
        const SlotShape shape{.num_experts = experts, .num_slots = slots, .num_ranks = ranks};
        const std::vector<double> load(static_cast<size_t>(experts), 1);
        // The check of a present list says whether every expert is there and every slot filled.
        EXPECT_TRUE(
            PlanLayer(BalancePolicy::kImprove, shape, load, LinearSlots(experts, ranks, slots)))
            << experts << " experts, " << slots << " slots, " << ranks << " ranks";
      }
    }
  }
}

TEST(RankLoads, UnevenExpertsLieAsTheyArePlaced) {
  // 7 experts on 3 ranks: 3, 2 and 2.
  const std::vector<int64_t> counts = {1, 2, 3, 10, 20, 100, 200};
  const auto in_order = [&](size_t num_experts, int num_ranks) {
    return RankLoads(num_ranks, std::span(counts).first(num_experts),
                     LinearSlots(static_cast<int64_t>(num_experts), num_ranks));
  };
  EXPECT_EQ(in_order(7, 3), (std::vector<int64_t>{6, 30, 300}));
  EXPECT_EQ(in_order(7, 1), (std::vector<int64_t>{336}));
  EXPECT_EQ(in_order(2, 4), (std::vector<int64_t>{1, 2, 0, 0}));
}

TEST(RankLoads, CopiesShareAndNoTokenIsLost) {
  const SlotList list = {0, 1, 0, -1, 0, 1};
  EXPECT_EQ(RankLoads(3, std::vector<int64_t>{11, 4}, list),
            (std::vector<int64_t>{4 + 2, 4, 3 + 2}));
  EXPECT_EQ(RankLoads(3, std::vector<double>{12, 5}, list), (std::vector<double>{6.5, 4, 6.5}));
}

TEST(Measures, OfAList) {
  const SlotShape shape{.num_experts = 3, .num_slots = 5, .num_ranks = 2};
  const std::vector<double> load = {6, 3, 1};
  const SlotList list = {0, 1, -1, 0, 0, 2};
  EXPECT_EQ(RankLoads(shape.num_ranks, load, list), (std::vector<double>{5, 5}));
  EXPECT_DOUBLE_EQ(Imbalance(std::vector<double>{1, 2, 3}), 0.5);
  EXPECT_EQ(Imbalance(std::vector<double>{0, 0}), 0);
  EXPECT_EQ(NumMoves(list, SlotList{0, 2, -1, 1, 0, 2}), 2);
  EXPECT_EQ(NumSameRankCopies(shape, list), 1);
  EXPECT_EQ(NumSameRankCopies(shape, SlotList{0, 1, -1, 2, 2, 2}), 2);
  // Four copies of expert 0 and 25 a rank: no placement is above the mean for want of copies; with
  // one spare slot the heaviest share is 50.
  const std::vector<double> skewed = {100, 0, 0, 0};
  EXPECT_EQ(BestImbalance({.num_experts = 4, .num_slots = 8, .num_ranks = 4}, skewed), 0);
  EXPECT_DOUBLE_EQ(BestImbalance({.num_experts = 4, .num_slots = 5, .num_ranks = 4}, skewed), 1);
}

}  // namespace
}  // namespace moebius::moe
