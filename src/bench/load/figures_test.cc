#include "bench/load/figures.h"

#include <gtest/gtest.h>

#include <random>

#include "bench/load/testing/records.h"

namespace moebius::load {
namespace {

RequestRecord Failed(Outcome outcome, double sent, double end) {
  RequestRecord record;
  record.sent = record.scheduled = record.released = sent;
  record.end = end;
  record.outcome = outcome;
  return record;
}

// Two requests: TTFT 1 and 2, gaps 0.5 (three) and 1 (one), over 5 s.
TEST(Figures, HandComputed) {
  const std::vector<RequestRecord> records = {Served(0, 1, 0.5, 4), Served(0, 2, 1, 2),
                                              Failed(Outcome::kRateLimited, 0, 0.1)};
  const Figures figures = MeasureRun(records, 5, {}, false);
  EXPECT_EQ(figures.completed, 2);
  EXPECT_EQ(figures.failed, 1);
  EXPECT_EQ(figures.by_outcome[static_cast<size_t>(Outcome::kRateLimited)], 1);
  EXPECT_EQ(figures.input_tokens, 20);
  EXPECT_EQ(figures.output_tokens, 6);
  EXPECT_DOUBLE_EQ(figures.request_rate, 0.4);
  EXPECT_DOUBLE_EQ(figures.output_rate, 1.2);
  EXPECT_DOUBLE_EQ(figures.total_rate, 5.2);
  EXPECT_EQ(figures.samples.ttft, (std::vector<double>{1, 2}));
  EXPECT_EQ(figures.samples.tpot, (std::vector<double>{0.5, 1}));
  EXPECT_EQ(figures.samples.itl, (std::vector<double>{0.5, 0.5, 0.5, 1}));
  EXPECT_EQ(figures.samples.e2el, (std::vector<double>{2.5, 3}));
  EXPECT_EQ(figures.samples.ttst, (std::vector<double>{0.5, 1}));
  EXPECT_EQ(figures.samples.lateness.size(), 3u);
  EXPECT_EQ(figures.max_concurrent_requests, 3);
  // Tokens at 1, 1.5, 2, 2.5 and 2, 3: three of them in the third second.
  EXPECT_DOUBLE_EQ(figures.max_output_tokens_per_s, 3);
  EXPECT_TRUE(figures.knows_cached);
}

TEST(Figures, AnEventOfSeveralTokensGivesBothKindsOfItl) {
  RequestRecord record = Served(0, 1, 0.6, 2);
  record.events[1].tokens = 3;
  record.output_tokens = 4;
  const Figures figures = MeasureRun(std::vector<RequestRecord>{record}, 2, {}, false);
  EXPECT_NEAR(figures.samples.itl.at(0), 0.6, 1e-9);
  ASSERT_EQ(figures.samples.itl_per_token.size(), 3u);
  EXPECT_DOUBLE_EQ(figures.samples.itl_per_token[0], 0.2);
  EXPECT_DOUBLE_EQ(figures.samples.tpot[0], 0.2);
  EXPECT_EQ(figures.num_inexact, 1);
}

TEST(Figures, GoodputAsksForEveryLimit) {
  const std::vector<RequestRecord> records = {Served(0, 1, 0.5, 4), Served(0, 2, 1, 2),
                                              Served(0, 1, 0, 1), Failed(Outcome::kTimeout, 0, 9)};
  const auto rate = [&](Limits limits) { return MeasureRun(records, 1, limits, false).goodput; };
  EXPECT_DOUBLE_EQ(rate({}), 3);
  EXPECT_DOUBLE_EQ(rate({1000, {}, {}}), 2);
  EXPECT_DOUBLE_EQ(rate({1000, 400, {}}), 1);  // the single token's TPOT is 0
  EXPECT_DOUBLE_EQ(rate({{}, {}, 2600}), 2);
  EXPECT_DOUBLE_EQ(rate({{}, {}, 900}), 0);
}

TEST(Figures, AStallIsAGapAboveFiveMedians) {
  const Stalls stalls = FindStalls({1, 1, 1, 5, 5.1, 9});
  EXPECT_DOUBLE_EQ(stalls.threshold, 15);  // the median is 3
  EXPECT_EQ(stalls.count, 0);
  const Stalls more = FindStalls({1, 1, 1, 1, 5, 5.1, 9});
  EXPECT_EQ(more.count, 2);
  EXPECT_DOUBLE_EQ(more.share, 2.0 / 7);
  EXPECT_DOUBLE_EQ(more.longest, 9);
  EXPECT_EQ(FindStalls({}).count, 0);
}

TEST(Figures, WhoLeavesMakesRoomForWhoComes) {
  const std::vector<RequestRecord> records = {Served(0, 1, 0, 1), Served(1, 1, 0, 1)};
  EXPECT_EQ(MeasureRun(records, 2, {}, false).max_concurrent_requests, 1);
}

TEST(Figures, OverSaturationIsSeen) {
  // Ten a second are sent, five a second are served, and the reverse.
  std::vector<RequestRecord> over;
  std::vector<RequestRecord> under;
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> jitter(0, 0.05);
  for (int i = 0; i < 200; ++i) {
    const double sent = i * 0.1;
    over.push_back(Served(sent, 0.2 * (i + 1) - sent + jitter(random), 0, 1));
    under.push_back(Served(sent, 0.05 + jitter(random), 0, 1));
  }
  EXPECT_TRUE(MeasureRun(over, 40, {}, true).over_saturated);
  EXPECT_FALSE(MeasureRun(over, 40, {}, false).over_saturated);
  EXPECT_FALSE(MeasureRun(under, 20, {}, true).over_saturated);
}

// Whatever the records, counts and rates agree with each other.
TEST(Figures, AddUpForRandomRecords) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<RequestRecord> records;
    double tokens = 0;
    const auto num_records = static_cast<int>(random() % 20);
    for (int i = 0; i < num_records; ++i) {
      const double sent = static_cast<double>(random() % 1000) / 100;
      if (random() % 5 == 0) {
        records.push_back(Failed(Outcome::kBroken, sent, sent + 1));
        continue;
      }
      const int n = 1 + static_cast<int>(random() % 9);
      records.push_back(Served(sent, 0.3, 0.1, n));
      tokens += n;
    }
    const Figures figures = MeasureRun(records, 20, {}, true);
    EXPECT_EQ(figures.completed + figures.failed, num_records);
    EXPECT_DOUBLE_EQ(figures.output_rate * 20, tokens);
    double sum = 0;
    for (const double second : TokensPerSecond(records)) sum += second;
    EXPECT_NEAR(sum, tokens, 1e-9);
    const std::vector<InFlight> steps = InFlightOverTime(records);
    EXPECT_TRUE(steps.empty() || steps.back().count == 0);
    EXPECT_EQ(figures.samples.itl.size() + static_cast<size_t>(figures.completed),
              static_cast<size_t>(tokens));
  }
}

}  // namespace
}  // namespace moebius::load
