#include "bench/load/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "bench/load/stats.h"

namespace moebius::load {
namespace {

std::vector<double> Gaps(const std::vector<double>& times) {
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  return gaps;
}

TEST(Schedule, AnInfiniteRateSendsAllAtOnce) {
  EXPECT_EQ(Arrivals({}, 3), (std::vector<double>{0, 0, 0}));
}

TEST(Schedule, AFixedRateEndsWhenItShould) {
  for (const uint64_t seed : {0, 1, 2}) {
    ArrivalOptions options;
    options.request_rate = 8;
    options.seed = seed;
    const std::vector<double> times = Arrivals(options, 400);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_NEAR(times.back(), 50, 1e-9);
  }
}

TEST(Schedule, BurstinessIsTheShapeOfTheGaps) {
  // A gamma distribution of shape k has a coefficient of variation of 1 / sqrt(k).
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    ArrivalOptions options;
    options.request_rate = 10;
    options.burstiness = burstiness;
    const std::vector<double> gaps = Gaps(Arrivals(options, 40000));
    EXPECT_NEAR(StandardDeviation(gaps) / Mean(gaps), 1 / std::sqrt(burstiness), 0.06);
  }
  ArrivalOptions even;
  even.request_rate = 10;
  even.burstiness = std::numeric_limits<double>::infinity();
  for (const double gap : Gaps(Arrivals(even, 50))) EXPECT_NEAR(gap, 0.1, 1e-9);
}

TEST(Schedule, SeedsRepeat) {
  ArrivalOptions options;
  options.request_rate = 5;
  EXPECT_EQ(Arrivals(options, 20), Arrivals(options, 20));
  ArrivalOptions other = options;
  other.seed = 1;
  EXPECT_NE(Arrivals(options, 20), Arrivals(other, 20));
}

TEST(Schedule, RampsGoFromStartToEnd) {
  ArrivalOptions options;
  options.ramp_up_start_rps = 2;
  options.ramp_up_end_rps = 8;
  options.ramp_up = RampUp::kLinear;
  EXPECT_DOUBLE_EQ(RateAt(options, 0), 2);
  EXPECT_DOUBLE_EQ(RateAt(options, 0.5), 5);
  EXPECT_DOUBLE_EQ(RateAt(options, 1), 8);
  options.ramp_up = RampUp::kExponential;
  EXPECT_DOUBLE_EQ(RateAt(options, 0), 2);
  EXPECT_DOUBLE_EQ(RateAt(options, 0.5), 4);
  EXPECT_DOUBLE_EQ(RateAt(options, 1), 8);
}

// From 0 to 20 a second within 100 s: 1000 arrivals, a quarter of them in the first half.
TEST(Schedule, ALinearRampWithinATimeSendsTheAreaBelowIt) {
  ArrivalOptions options;
  options.ramp_up = RampUp::kLinear;
  options.ramp_up_end_rps = 20;
  const std::vector<double> times = ArrivalsWithin(options, 100);
  EXPECT_NEAR(static_cast<double>(times.size()), 1000, 100);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_LT(times.back(), 100);
  const auto early = std::count_if(times.begin(), times.end(), [](double t) { return t < 50; });
  EXPECT_NEAR(static_cast<double>(early) / static_cast<double>(times.size()), 0.25, 0.05);
}

TEST(Schedule, AFixedRateWithinATime) {
  ArrivalOptions options;
  options.request_rate = 50;
  EXPECT_NEAR(static_cast<double>(ArrivalsWithin(options, 40).size()), 2000, 150);
}

TEST(Schedule, ConcurrencyGrowsToItsMaximum) {
  EXPECT_EQ(ConcurrencyAt(8, 0, 0), 8);
  EXPECT_EQ(ConcurrencyAt(9, 10, 0), 1);
  EXPECT_EQ(ConcurrencyAt(9, 10, 5), 5);
  EXPECT_EQ(ConcurrencyAt(9, 10, 9.99), 8);
  EXPECT_EQ(ConcurrencyAt(9, 10, 10), 9);
}

TEST(Schedule, WhatCannotBeScheduledIsNamed) {
  ArrivalOptions options;
  options.request_rate = 0;
  EXPECT_NE(CheckArrivals(options).error().message().find("--request-rate is 0"),
            std::string::npos);
  options = {};
  options.burstiness = -1;
  EXPECT_NE(CheckArrivals(options).error().message().find("--burstiness is -1"), std::string::npos);
  options = {};
  options.ramp_up = RampUp::kExponential;
  options.ramp_up_end_rps = 4;
  EXPECT_FALSE(CheckArrivals(options));
  options.ramp_up_start_rps = 1;
  EXPECT_TRUE(CheckArrivals(options));
  options.request_rate = 2;
  EXPECT_FALSE(CheckArrivals(options));
}

}  // namespace
}  // namespace moebius::load
