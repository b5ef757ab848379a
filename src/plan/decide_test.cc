#include "plan/decide.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "plan/search_test_util.h"

namespace moebius::plan {
namespace {

Question Ask(Objective objective, int gpus, std::optional<int64_t> concurrency) {
  Question question;
  question.objective = objective;
  question.gpu_counts = {gpus};
  question.concurrency = concurrency;
  return question;
}

TEST(Decide, OrdersByTheObjective) {
  const Decision latency = Decide(TestInput(), Ask(Objective::kLatency, 8, 16));
  ASSERT_GT(latency.ranked.size(), 2u);
  // Each is the best of what follows but for a tie, which the first token breaks.
  for (size_t i = 0; i + 1 < latency.ranked.size(); ++i) {
    for (size_t j = i + 1; j < latency.ranked.size(); ++j) {
      const Estimate& before = latency.ranked[i];
      const Estimate& after = latency.ranked[j];
      EXPECT_LE(before.tpot_ms, after.tpot_ms * (1 + kTieShare));
      if (after.tpot_ms > before.tpot_ms) continue;
      EXPECT_LE(before.ttft_ms, after.ttft_ms);
    }
  }
  const Decision throughput = Decide(TestInput(), Ask(Objective::kThroughput, 8, std::nullopt));
  ASSERT_GT(throughput.ranked.size(), 2u);
  for (size_t i = 1; i < throughput.ranked.size(); ++i) {
    EXPECT_LE(throughput.ranked[i].output_tokens_per_s,
              throughput.ranked[i - 1].output_tokens_per_s * (1 + kTieShare));
  }
  // With the load free, it is as large as pays.
  EXPECT_GT(throughput.ranked.front().concurrency, 16);
  for (const Estimate& e : throughput.ranked) EXPECT_TRUE(e.ok());
}

TEST(Decide, LimitsTurnLayoutsDownWithTheirFigures) {
  Question question = Ask(Objective::kThroughput, 8, std::nullopt);
  question.tpot_ms = 60;
  const Decision decision = Decide(TestInput(), question);
  for (const Estimate& e : decision.ranked) EXPECT_LE(e.tpot_ms, 60);

  question.tpot_ms = 0.001;
  question.concurrency = 16;
  const Decision none = Decide(TestInput(), question);
  EXPECT_TRUE(none.ranked.empty());
  EXPECT_TRUE(std::any_of(none.rejected.begin(), none.rejected.end(), [](const Rejection& r) {
    return r.by == RejectedBy::kLimit && r.reason.find("TPOT") != std::string::npos &&
           r.reason.find("0.001 ms") != std::string::npos;
  }));
}

// Recommendation, crossover and bands are one comparison seen from three sides.
TEST(Decide, NothingContradictsTheBands) {
  const PlanInput input = TestInput();
  for (const auto& [gpus, wanted] : std::vector<std::pair<int, int64_t>>{
           {8, 1}, {8, 4}, {8, 16}, {8, 45}, {8, 64}, {8, 200}, {64, 16}, {64, 64}, {64, 1000}}) {
    const Decision decision = Decide(input, Ask(Objective::kLatency, gpus, wanted));
    ASSERT_GT(decision.ranked.size(), 1u);
    const std::string second = decision.ranked[1].name();
    bool second_leads = false;
    for (size_t i = 0; i < decision.bands.size(); ++i) {
      const Band& band = decision.bands[i];
      EXPECT_LE(band.from, band.to);
      EXPECT_TRUE(i == 0 || band.from == decision.bands[i - 1].to + 1);
      EXPECT_TRUE(i == 0 || band.layout != decision.bands[i - 1].layout);
      if (band.from <= wanted && wanted <= band.to) {
        EXPECT_EQ(band.layout, decision.ranked[0].name()) << gpus << " GPUs at " << wanted;
      } else {
        EXPECT_GE(static_cast<double>(band.to - band.from + 1),
                  0.1 * static_cast<double>(band.from));
      }
      if (band.layout != second) continue;
      second_leads = true;
    }
    const Crossover& crossover = decision.crossover;
    EXPECT_EQ(crossover.concurrency.has_value(), second_leads) << crossover.text;
    if (!crossover.concurrency) continue;
    EXPECT_EQ(crossover.upwards, *crossover.concurrency > wanted);
    EXPECT_EQ(
        Decide(input, Ask(Objective::kLatency, gpus, *crossover.concurrency)).ranked.front().name(),
        second)
        << gpus << " GPUs at " << wanted << ": " << crossover.text;
  }
}

TEST(Decide, BandsCoverConcurrencyAndNameTheWinners) {
  const PlanInput input = TestInput();
  const Decision decision = Decide(input, Ask(Objective::kLatency, 8, 16));
  ASSERT_FALSE(decision.bands.empty());
  EXPECT_EQ(decision.bands.front().from, 1);
  for (const Band& band : decision.bands) {
    EXPECT_EQ(Decide(input, Ask(Objective::kLatency, 8, band.from)).ranked.front().name(),
              band.layout)
        << band.from;
  }
}

TEST(Decide, WhatWidthBuysIsTightAtTheLimit) {
  const PlanInput input = TestInput();
  const std::vector<WidthRow> rows = WhatWidthBuys(input, 60.0);
  ASSERT_EQ(rows.size(), 1u);
  ASSERT_EQ(rows[0].points.size(), 4u);
  for (const WidthPoint& point : rows[0].points) {
    EXPECT_EQ(point.experts_per_gpu_layer, 256 / point.ep);
    EXPECT_EQ(point.experts_per_gpu, 256 / point.ep * 58);
    if (point.requests_per_gpu == 0) continue;
    EXPECT_LE(point.step_ms, 60);
    EXPECT_NEAR(point.tokens_per_s_gpu,
                static_cast<double>(point.requests_per_gpu) / point.step_ms * 1e3, 1e-6);
  }
  EXPECT_EQ(WhatWidthBuys(input, std::nullopt).size(), 4u);
  PlanInput dense = input;
  dense.model.numbers.num_experts = 0;
  dense.model.num_moe_layers = 0;
  EXPECT_TRUE(WhatWidthBuys(dense, 60.0).empty());
}

TEST(Decide, CostMayLeaveGpusIdle) {
  PlanInput input = TestInput();
  input.gpu_hour_price = 2;
  const Decision decision = Decide(input, Ask(Objective::kCost, 32, 4));
  ASSERT_FALSE(decision.ranked.empty());
  // Four requests do not fill 32 GPUs.
  EXPECT_LT(decision.ranked.front().gpus(), 32);
  for (const Estimate& e : decision.ranked) {
    EXPECT_GE(e.dollars_per_million * (1 + kTieShare), decision.ranked.front().dollars_per_million);
  }
}

TEST(Decide, TheFilterOfExpertParallelism) {
  Question question = Ask(Objective::kLatency, 8, 16);
  for (const bool ep : {true, false}) {
    question.expert_parallel = ep;
    for (const Estimate& e : Decide(TestInput(), question).ranked) {
      EXPECT_EQ(e.layout.config.expert_parallel_active(), ep) << e.name();
    }
  }
}

TEST(Decide, WhyNamesDensityCapacityExpertsAndExchange) {
  const Decision decision = Decide(TestInput(), Ask(Objective::kLatency, 8, 64));
  std::string all;
  for (const std::string& sentence : decision.why) all += sentence + "\n";
  for (const char* part : {"8 of 256", "3.12 %", "KV:", "Experts:", "Exchange:", "Against"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << " in\n" << all;
  }
}

TEST(Decide, TheSameQuestionHasTheSameAnswer) {
  const Decision a = Decide(TestInput(), Ask(Objective::kLatency, 16, 64));
  const Decision b = Decide(TestInput(), Ask(Objective::kLatency, 16, 64));
  ASSERT_EQ(a.ranked.size(), b.ranked.size());
  for (size_t i = 0; i < a.ranked.size(); ++i) EXPECT_EQ(a.ranked[i].name(), b.ranked[i].name());
  EXPECT_EQ(a.crossover.text, b.crossover.text);
  EXPECT_EQ(a.why, b.why);
}

}  // namespace
}  // namespace moebius::plan
