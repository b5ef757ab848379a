#include "moe/balance/replay.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace moebius::moe {
namespace {

TEST(SyntheticLoads, AreAsSkewedAsAsked) {
  SyntheticLoads loads(4, 256, 1.2, 1);
  const std::vector<double> before = loads.Popularity();
  loads.Drift(0);
  EXPECT_EQ(loads.Popularity(), before);
  loads.Drift(0.2);
  double squares = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    squares += std::pow(std::log(loads.Popularity()[i] / before[i]), 2) / 1024;
  }
  EXPECT_NEAR(std::sqrt(squares), 1.2 * std::sqrt(2 - 2 * std::sqrt(0.96)), 0.03);
  const std::vector<double> counts = loads.Draw(10000);
  for (int l = 0; l < 4; ++l) {
    EXPECT_EQ(std::accumulate(counts.begin() + l * 256, counts.begin() + (l + 1) * 256, 0.0),
              10000);
  }
}

TEST(SyntheticTrace, SameSeedSameTrace) {
  const SyntheticTraceOptions options{.num_layers = 2,
                                      .num_experts = 16,
                                      .num_windows = 5,
                                      .windows_per_change = 2,
                                      .draws_per_window = 1000};
  const LoadTrace trace = SyntheticTrace(TraceKind::kShifting, 4, options);
  ASSERT_TRUE(CheckTrace(trace));
  EXPECT_EQ(trace.windows, SyntheticTrace(TraceKind::kShifting, 4, options).windows);
  EXPECT_NE(trace.windows, SyntheticTrace(TraceKind::kStationary, 4, options).windows);
  EXPECT_EQ(ParseTraceKind("drifting").value(), TraceKind::kDrifting);
  EXPECT_EQ(ParseTraceKind("shiftin").error().message(),
            "load trace 'shiftin', expected stationary, drifting or shifting (did you mean "
            "shifting?)");
}

TEST(Replay, CountsByHand) {
  // The hot expert changes once; plans see it one window late.
  const SlotShape shape{.num_experts = 2, .num_slots = 4, .num_ranks = 2};
  const LoadTrace trace{1, 2, {{30, 10}, {30, 10}, {10, 30}}};
  ReplayOptions options;
  options.bytes_per_expert = 100;
  options.cost.seconds_per_row = 1;
  const auto none = Replay(trace, shape, std::nullopt, options);
  ASSERT_TRUE(none) << none.error().message();
  EXPECT_EQ(none->policy, "none");
  EXPECT_EQ(none->num_updates, 0);
  EXPECT_EQ(none->slots_rewritten, 0);
  EXPECT_EQ(none->imbalance, 0);  // both ranks start with both experts
  EXPECT_EQ(none->step_seconds, 20);
  // Greedy: copies 3 and 1, so rank 0 holds {0, 0} and rank 1 {0, 1}: 20 to 20, then 6.7 to 33.3.
  const auto greedy = Replay(trace, shape, BalancePolicy::kTrtllm, options);
  ASSERT_TRUE(greedy) << greedy.error().message();
  EXPECT_EQ(greedy->num_updates, 1);
  EXPECT_EQ(greedy->slots_rewritten, 0);
  EXPECT_NEAR(greedy->imbalance, (0 + 2.0 / 3) / 2, 1e-12);
  EXPECT_NEAR(greedy->step_seconds, (20 + 100.0 / 3) / 2, 1e-9);
}

TEST(Replay, ImproveWritesLessThanGreedy) {
  const SlotShape shape{.num_experts = 64, .num_slots = 72, .num_ranks = 8};
  SyntheticTraceOptions synthetic{
      .num_layers = 2, .num_experts = 64, .num_windows = 24, .windows_per_change = 4};
  synthetic.draws_per_window = 1 << 18;
  const LoadTrace trace = SyntheticTrace(TraceKind::kDrifting, 2, synthetic);
  std::vector<ReplayResult> results;
  results.push_back(Replay(trace, shape, std::nullopt, {}).value());
  for (const auto policy :
       {BalancePolicy::kDeepSeek, BalancePolicy::kTrtllm, BalancePolicy::kImprove}) {
    results.push_back(Replay(trace, shape, policy, {}).value());
    EXPECT_EQ(results.back().num_updates, 22);
    EXPECT_LT(results.back().imbalance, results.front().imbalance / 2);
  }
  EXPECT_LT(results[3].slots_rewritten, results[2].slots_rewritten / 5);
  EXPECT_LE(results[3].imbalance, results[2].imbalance + 0.02);
  const std::string table = ReplayTable(results);
  for (const char* name : {"none", "deepseek", "trtllm", "improve"}) {
    EXPECT_NE(table.find(name), std::string::npos) << table;
  }
}

TEST(Replay, RefusesWhatDoesNotFit) {
  const LoadTrace trace{1, 2, {{1, 2}, {1, 2}}};
  const SlotShape odd{.num_experts = 2, .num_slots = 3, .num_ranks = 2};
  EXPECT_FALSE(Replay(trace, odd, BalancePolicy::kDeepSeek, {}));
  EXPECT_TRUE(Replay(trace, odd, BalancePolicy::kImprove, {}));
  EXPECT_FALSE(Replay(trace, {.num_experts = 3, .num_slots = 3}, std::nullopt, {}));
  EXPECT_FALSE(Replay({1, 2, {{1, 2}}}, odd, std::nullopt, {}));
  EXPECT_EQ(CheckTrace({1, 2, {{1, 2}, {1}}}).error().message(),
            "load trace: window 1 has 1 loads, expected 2 (1 layers of 2 experts)");
}

}  // namespace
}  // namespace moebius::moe
