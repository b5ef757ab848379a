#include "bench/load/window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "bench/load/testing/records.h"

namespace moebius::load {
namespace {

// `concurrency` users, each with `rounds` requests one after another, a token each `gap`, `pause`
// between them.
std::vector<RequestRecord> ClosedLoop(int concurrency, int rounds, int tokens, double gap,
                                      double pause = 0) {
  std::vector<RequestRecord> records;
  for (int user = 0; user < concurrency; ++user) {
    double now = 0;
    for (int round = 0; round < rounds; ++round) {
      records.push_back(Served(now, gap, gap, tokens));
      now = records.back().end + pause;
    }
  }
  return records;
}

TEST(Window, OfOneUserIsAllButTheFirstToken) {
  const auto window = FindWindow(ClosedLoop(1, 3, 4, 0.5), {.target = 1});
  ASSERT_TRUE(window);
  EXPECT_DOUBLE_EQ(window->begin, 0.5);
  EXPECT_DOUBLE_EQ(window->end, 6);
}

TEST(Window, ATurnAroundIsNoEndAndALongPauseIs) {
  EXPECT_DOUBLE_EQ(FindWindow(ClosedLoop(1, 3, 4, 0.5, 0.01), {.target = 1})->end, 6.02);
  EXPECT_DOUBLE_EQ(FindWindow(ClosedLoop(1, 3, 4, 0.5, 0.2), {.target = 1})->end, 2);
}

TEST(Window, WaitsForTheFirstTokenOfAllThatFilledIt) {
  std::vector<RequestRecord> records = ClosedLoop(3, 4, 10, 1);
  records.push_back(Served(0, 25, 1, 10));  // the fourth user's first token comes late
  const auto window = FindWindow(records, {.target = 4});
  ASSERT_TRUE(window);
  EXPECT_DOUBLE_EQ(window->begin, 25);
  EXPECT_DOUBLE_EQ(window->end, 34);
}

TEST(Window, NeverFullMeansNone) {
  EXPECT_FALSE(FindWindow(ClosedLoop(3, 2, 5, 1), {.target = 4}));
  const SteadyFigures figures = MeasureWindow(ClosedLoop(3, 2, 5, 1), {.target = 4});
  EXPECT_FALSE(figures.is_steady);
  EXPECT_NE(figures.why_not.find("95 %"), std::string::npos);
}

TEST(Window, WhatFailedIsNoThroughput) {
  std::vector<RequestRecord> records = ClosedLoop(2, 20, 10, 1);
  const SteadyFigures all = MeasureWindow(records, {.target = 2});
  ASSERT_GT(all.output_rate, 0);
  // One of the two users: every answer breaks before its end.
  for (size_t i = 0; i < records.size() / 2; ++i) records[i].outcome = Outcome::kStreamError;
  const SteadyFigures half = MeasureWindow(records, {.target = 2});
  EXPECT_DOUBLE_EQ(half.window->seconds(), all.window->seconds());
  EXPECT_DOUBLE_EQ(half.output_rate, all.output_rate / 2);
  EXPECT_DOUBLE_EQ(half.input_rate, all.input_rate / 2);
  EXPECT_DOUBLE_EQ(half.peak_1s, all.peak_1s / 2);
  EXPECT_NEAR(Mean(half.buckets_10s), Mean(all.buckets_10s) / 2, 1e-9);
  // What we ended ourselves was served until then.
  for (size_t i = 0; i < records.size() / 2; ++i) records[i].outcome = Outcome::kCancelled;
  EXPECT_DOUBLE_EQ(MeasureWindow(records, {.target = 2}).output_rate, all.output_rate);
}

TEST(Window, NinetyFivePercentAreEnough) {
  std::vector<RequestRecord> records = ClosedLoop(19, 2, 10, 1);
  const auto window = FindWindow(records, {.target = 20});
  ASSERT_TRUE(window);
  EXPECT_DOUBLE_EQ(window->begin, 1);
  EXPECT_DOUBLE_EQ(window->end, 20);
  EXPECT_FALSE(FindWindow(ClosedLoop(18, 2, 10, 1), {.target = 20}));
}

// Four users with a token every half second each: 8 tokens/s, 10 prompt tokens every 20 tokens.
TEST(Window, RatesByHand) {
  const SteadyFigures figures = MeasureWindow(ClosedLoop(4, 12, 20, 0.5), {.target = 4});
  ASSERT_TRUE(figures.window);
  EXPECT_DOUBLE_EQ(figures.window->begin, 0.5);
  EXPECT_DOUBLE_EQ(figures.window->end, 120);
  EXPECT_NEAR(figures.output_rate, 8, 0.01);
  // 4 users' 12 first tokens fall in W (the first at its very beginning).
  EXPECT_NEAR(figures.input_rate, 4 * 12 * 10 / 119.5, 1e-9);
  EXPECT_DOUBLE_EQ(*figures.uncached_input_rate, figures.input_rate);
  EXPECT_NEAR(figures.total_rate, figures.input_rate + figures.output_rate, 1e-9);
  EXPECT_EQ(figures.completions, 4 * 11);  // the last end where W does
  EXPECT_TRUE(figures.is_steady);
  EXPECT_NEAR(*figures.peak_10s, 8, 0.01);
  EXPECT_DOUBLE_EQ(figures.peak_1s, 8);
  EXPECT_NEAR(*figures.steady_ratio, 1, 0.01);
  EXPECT_EQ(figures.steady_ratio_verdict, Verdict::kPass);
  EXPECT_EQ(figures.buckets_10s.size(), 11u);
  EXPECT_NEAR(*figures.variation, 0, 1e-9);
  EXPECT_EQ(figures.variation_verdict, Verdict::kPass);
  EXPECT_EQ(figures.drift_verdict, Verdict::kPass);
  EXPECT_DOUBLE_EQ(*figures.warm_up_seconds, 11);  // the first second lacks its first tokens
}

TEST(Window, TooFewCompletionsAreNotSteady) {
  const SteadyFigures figures = MeasureWindow(ClosedLoop(4, 2, 5, 0.5), {.target = 4});
  EXPECT_FALSE(figures.is_steady);
  EXPECT_NE(figures.why_not.find("expected 12 or a minute"), std::string::npos);
  EXPECT_FALSE(figures.drift);
  EXPECT_EQ(figures.drift_verdict, Verdict::kUnknown);
}

TEST(Window, AMinuteIsEnough) {
  EXPECT_TRUE(MeasureWindow(ClosedLoop(4, 1, 130, 0.5), {.target = 4}).is_steady);
}

// One user whose tokens come ever faster: from 10 a second to 20 over 100 s.
TEST(Window, DriftIsFlagged) {
  RequestRecord record = Served(0, 0, 0, 1);
  for (double now = 0; now < 100;) {
    now += 1 / (10 + now / 10);
    record.events.push_back({now, 1});
  }
  record.end = record.events.back().time;
  const SteadyFigures figures = MeasureWindow(std::vector<RequestRecord>{record}, {.target = 1});
  ASSERT_TRUE(figures.drift);
  // 10 tokens/s more in 100 s, of 15 on average: 40 % a minute.
  EXPECT_NEAR(figures.drift->slope, 40, 1);
  EXPECT_GT(figures.drift->low, 0);
  EXPECT_EQ(figures.drift_verdict, Verdict::kFlag);
  EXPECT_EQ(figures.variation_verdict, Verdict::kFlag);
  EXPECT_EQ(figures.steady_ratio_verdict, Verdict::kFlag);
  EXPECT_FALSE(figures.warm_up_seconds);  // it never settles
}

TEST(Window, OfAnOpenLoopGoesFromTheFirstCompletionToTheLastSending) {
  std::vector<RequestRecord> records;
  for (int i = 0; i < 50; ++i) records.push_back(Served(i * 0.2, 0.3, 0.1, 3));
  const auto window = FindWindow(records, {});
  ASSERT_TRUE(window);
  EXPECT_NEAR(window->begin, 0.7, 1e-9);  // the request sent at 0.4 has its first token then
  EXPECT_NEAR(window->end, 9.8, 1e-9);
  EXPECT_TRUE(MeasureWindow(records, {}).is_steady);
}

// Tokens in W are at most those of the run, and W lies inside it.
TEST(Window, HoldsNoMoreThanTheRun) {
  std::mt19937_64 random(11);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<RequestRecord> records;
    double tokens = 0;
    double last = 0;
    for (int i = 0; i < 30; ++i) {
      const int n = 1 + static_cast<int>(random() % 20);
      records.push_back(Served(static_cast<double>(random() % 100) / 10, 0.2, 0.1, n));
      tokens += n;
      last = std::max(last, records.back().end);
    }
    const auto target = static_cast<int64_t>(random() % 12);
    const SteadyFigures figures = MeasureWindow(records, {.target = target});
    if (!figures.window) continue;
    EXPECT_LT(figures.window->begin, figures.window->end);
    EXPECT_GE(figures.window->begin, 0);
    EXPECT_LE(figures.window->end, last);
    EXPECT_LE(figures.output_rate * figures.window->seconds(), tokens + 1e-6);
  }
}

}  // namespace
}  // namespace moebius::load
