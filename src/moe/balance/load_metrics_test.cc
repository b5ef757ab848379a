#include "moe/balance/load_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moebius::moe {
namespace {

TEST(LoadMetrics, EvenLoad) {
  const LoadMetrics metrics = Measure(std::vector<double>(8, 100));
  EXPECT_DOUBLE_EQ(metrics.mean, 100);
  EXPECT_DOUBLE_EQ(metrics.std, 0);
  EXPECT_DOUBLE_EQ(metrics.active_share, 1);
  EXPECT_DOUBLE_EQ(metrics.max_over_mean, 1);
  EXPECT_DOUBLE_EQ(metrics.balancedness, 1);
  EXPECT_NEAR(metrics.gini, 0, 1e-12);
  EXPECT_NEAR(metrics.entropy, 1, 1e-12);
  EXPECT_TRUE(metrics.starved.empty());
  EXPECT_TRUE(metrics.dominant.empty());
  EXPECT_FALSE(metrics.HasCollapsed(8));
}

TEST(LoadMetrics, KnownFigures) {
  const LoadMetrics metrics = Measure(std::vector<int64_t>{0, 10, 30, 60});
  EXPECT_DOUBLE_EQ(metrics.mean, 25);
  EXPECT_DOUBLE_EQ(metrics.max, 60);
  EXPECT_NEAR(metrics.std, std::sqrt(2100.0 / 3), 1e-12);
  EXPECT_DOUBLE_EQ(metrics.active_share, 0.75);
  EXPECT_DOUBLE_EQ(metrics.max_over_mean, 2.4);
  EXPECT_DOUBLE_EQ(metrics.balancedness, 25.0 / 60);
  EXPECT_NEAR(metrics.cv, std::sqrt(700.0) / 25, 1e-12);
  // The twelve ordered pairs differ by 400 in all: 400 / (2 * 16 * 25).
  EXPECT_NEAR(metrics.gini, 0.5, 1e-12);
  const double entropy =
      -(0.1 * std::log(0.1) + 0.3 * std::log(0.3) + 0.6 * std::log(0.6)) / std::log(4.0);
  EXPECT_NEAR(metrics.entropy, entropy, 1e-12);
  EXPECT_EQ(metrics.starved, std::vector<int32_t>{0});
  EXPECT_DOUBLE_EQ(metrics.StarvedShare(4), 0.25);
  EXPECT_TRUE(metrics.HasCollapsed(4));
}

TEST(LoadMetrics, OneTakesAll) {
  std::vector<double> counts(16, 0);
  counts[5] = 64;
  const LoadMetrics metrics = Measure(counts);
  EXPECT_DOUBLE_EQ(metrics.max_over_mean, 16);
  EXPECT_NEAR(metrics.gini, 15.0 / 16, 1e-12);
  EXPECT_NEAR(metrics.entropy, 0, 1e-12);
  EXPECT_EQ(metrics.starved.size(), 15u);
  EXPECT_EQ(metrics.dominant, std::vector<int32_t>{5});
}

TEST(LoadMetrics, WithoutTokensOrExperts) {
  for (const std::vector<double>& counts : {std::vector<double>(4, 0), std::vector<double>()}) {
    const LoadMetrics metrics = Measure(counts);
    EXPECT_DOUBLE_EQ(metrics.active_share, 0);
    EXPECT_DOUBLE_EQ(metrics.max_over_mean, 1);
    EXPECT_FALSE(metrics.HasCollapsed(counts.size()));
  }
}

TEST(LoadMetrics, TheShareThatChanceWouldReach) {
  EXPECT_DOUBLE_EQ(ExpectedActiveShare(4, 2, 1), 0.5);
  EXPECT_DOUBLE_EQ(ExpectedActiveShare(4, 2, 3), 0.875);
  EXPECT_DOUBLE_EQ(ExpectedActiveShare(256, 8, 0), 0);
  EXPECT_NEAR(ExpectedActiveShare(256, 8, 1000), 1, 1e-12);
}

TEST(LoadMetrics, DivergenceIsOfShares) {
  const std::vector<double> even = {1, 1};
  const std::vector<double> skewed = {300, 100};
  EXPECT_DOUBLE_EQ(Divergence(even, std::vector<double>{50, 50}), 0);
  EXPECT_DOUBLE_EQ(Divergence(skewed, even), 0.75 * std::log(1.5) + 0.25 * std::log(0.5));
  // An expert that the reference never took.
  const std::vector<double> all_on_0 = {200, 0};
  EXPECT_NEAR(Divergence(even, all_on_0), 0.5 * std::log(0.5) + 0.5 * std::log(0.5 * 2001), 1e-3);
  EXPECT_NEAR(Divergence(all_on_0, all_on_0), 0, 1e-3);
  const std::vector<double> none = {0, 0};
  EXPECT_EQ(Divergence(none, even), 0);
  EXPECT_EQ(Divergence(even, none), 0);
}

TEST(LoadMetrics, StarvedInEachOfTheLastWindows) {
  const std::vector<double> all = {50, 50, 50};
  const std::vector<double> without_0 = {0, 50, 50};
  const std::vector<double> without_0_2 = {0, 100, 1};
  std::vector<std::vector<double>> windows = {all, without_0, without_0_2, without_0};
  EXPECT_EQ(StarvedExperts(windows), std::vector<int32_t>{0});
  windows.push_back(all);
  EXPECT_TRUE(StarvedExperts(windows).empty());
  EXPECT_EQ(StarvedExperts(std::vector<std::vector<double>>{without_0_2}),
            (std::vector<int32_t>{0, 2}));
  EXPECT_TRUE(StarvedExperts({}).empty());
}

}  // namespace
}  // namespace moebius::moe
