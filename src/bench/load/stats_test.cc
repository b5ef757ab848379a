#include "bench/load/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace moebius::load {
namespace {

TEST(Stats, PercentilesInterpolateBetweenNeighbours) {
  const std::vector<double> sorted = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(Percentile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(sorted, 50), 2.5);
  EXPECT_DOUBLE_EQ(Percentile(sorted, 90), 3.7);
  EXPECT_DOUBLE_EQ(Percentile(sorted, 100), 4);
  EXPECT_DOUBLE_EQ(Percentile({}, 50), 0);
}

TEST(Stats, DescribesSamplesInAnyOrder) {
  const Distribution d = Describe({4, 1, 3, 2});
  EXPECT_EQ(d.n, 4);
  EXPECT_DOUBLE_EQ(d.mean, 2.5);
  EXPECT_NEAR(d.std, std::sqrt(1.25), 1e-12);
  EXPECT_DOUBLE_EQ(d.min, 1);
  EXPECT_DOUBLE_EQ(d.max, 4);
  EXPECT_DOUBLE_EQ(d.p50, 2.5);
  EXPECT_EQ(Describe({}).n, 0);
}

TEST(Stats, StudentsTAgreesWithItsTables) {
  EXPECT_NEAR(StudentT975(1), 12.706, 1e-3);
  EXPECT_NEAR(StudentT975(11), 2.201, 1e-3);
  EXPECT_NEAR(StudentT975(30), 2.042, 1e-3);
  EXPECT_NEAR(StudentT975(1000), 1.962, 1e-3);
}

// By hand: x = 0..3, y = 1,2,2,5: slope 1.2, residuals 0.3, 0.1, -1.1, 0.7; their squares sum to
// 1.8; error sqrt(1.8 / 2 / 5).
TEST(Stats, FitsASlopeWithItsInterval) {
  const std::vector<double> x = {0, 1, 2, 3};
  const std::vector<double> y = {1, 2, 2, 5};
  const auto fit = FitSlope(x, y);
  ASSERT_TRUE(fit);
  EXPECT_NEAR(fit->slope, 1.2, 1e-12);
  const double half = 4.3027 * std::sqrt(0.18);
  EXPECT_NEAR(fit->low, 1.2 - half, 1e-9);
  EXPECT_NEAR(fit->high, 1.2 + half, 1e-9);
  EXPECT_FALSE(FitSlope(std::vector<double>{1, 2}, std::vector<double>{1, 2}));
  EXPECT_FALSE(FitSlope(std::vector<double>{1, 1, 1}, y));
}

// Of lines without a slope, about one in twenty should look like one with it.
TEST(Stats, TheIntervalHoldsTheTruthAsOftenAsItSays) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> noise(0, 3);
  int missed = 0;
  constexpr int kTrials = 2000;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> x(8);
    std::vector<double> y(8);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<double>(i);
      y[i] = 7 + 0.5 * x[i] + noise(random);
    }
    const auto fit = FitSlope(x, y);
    if (fit->low > 0.5 || fit->high < 0.5) ++missed;
  }
  EXPECT_GT(missed, kTrials * 0.03);
  EXPECT_LT(missed, kTrials * 0.07);
}

}  // namespace
}  // namespace moebius::load
