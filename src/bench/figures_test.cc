#include "bench/figures.h"

#include <gtest/gtest.h>

namespace moebius::bench {
namespace {

Clock::time_point At(int milliseconds) {
  return Clock::time_point(std::chrono::milliseconds(milliseconds));
}

TEST(Figures, SummaryOfSamples) {
  const Summary summary = Summarise({4, 1, 3, 2, 5});
  EXPECT_DOUBLE_EQ(summary.mean, 3);
  EXPECT_DOUBLE_EQ(summary.p50, 3);
  EXPECT_DOUBLE_EQ(summary.p90, 4.6);
  EXPECT_DOUBLE_EQ(summary.min, 1);
  EXPECT_DOUBLE_EQ(summary.max, 5);
  EXPECT_DOUBLE_EQ(Summarise({}).p99, 0);
  EXPECT_DOUBLE_EQ(Summarise({7}).p99, 7);
}

TEST(Figures, TimesOfATrace) {
  Trace trace;
  trace.requests = {{At(0), {At(100), At(110), At(130)}}, {At(10), {At(120), At(130), At(140)}}};
  trace.seconds = 0.140;
  const Figures figures = Measure({trace}, 4);
  EXPECT_NEAR(figures.ttft.mean, 0.105, 1e-9);
  EXPECT_NEAR(figures.tpot.mean, (0.015 + 0.010) / 2, 1e-9);
  EXPECT_NEAR(figures.itl.max, 0.020, 1e-9);
  EXPECT_NEAR(figures.output_rate, 6 / 0.140, 1e-6);
  EXPECT_NEAR(figures.total_rate, 14 / 0.140, 1e-6);
  EXPECT_NEAR(figures.request_rate, 2 / 0.140, 1e-6);
  // From 120 ms on: 130 and 130, 140.
  EXPECT_NEAR(figures.decode_rate, 3 / 0.020, 1e-6);
}

}  // namespace
}  // namespace moebius::bench
