#include "rank/step_bound.h"

#include <gtest/gtest.h>

namespace moebius::rank {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

StepBound Learned(int64_t rows, nanoseconds took, int steps = StepBound::kStepsToLearn) {
  StepBound bound({});
  for (int i = 0; i < steps; ++i) bound.Learn(rows, took);
  return bound;
}

TEST(StepBound, AtTheStartNothingIsKnown) {
  EXPECT_EQ(StepBound({}).Of(1), minutes(1));
  EXPECT_EQ(Learned(1, milliseconds(1), StepBound::kStepsToLearn - 1).Of(1), minutes(1));
  EXPECT_EQ(Learned(1, milliseconds(1)).Of(1), seconds(2));
}

TEST(StepBound, TenTimesTheLongestOfItsSize) {
  StepBound bound = Learned(100, milliseconds(400));
  bound.Learn(127, milliseconds(500));
  bound.Learn(64, milliseconds(10));
  EXPECT_NEAR(static_cast<double>(bound.Of(90).count()), 10 * 0.99 * 0.5e9, 1e6);
  EXPECT_EQ(bound.Of(5), bound.Of(90)) << "smaller than all that were seen";
}

TEST(StepBound, MoreRowsMayTakeLongerInProportion) {
  const StepBound bound = Learned(16, milliseconds(300));
  EXPECT_EQ(bound.Of(16), seconds(3));
  EXPECT_EQ(bound.Of(31), seconds(3));
  EXPECT_EQ(bound.Of(32), seconds(6));
  EXPECT_EQ(bound.Of(300), seconds(48));
  EXPECT_EQ(bound.Of(600), minutes(1));
  EXPECT_EQ(bound.Of(INT64_MAX), minutes(1));
}

TEST(StepBound, OneRowMayTakeAsLongAsManyDid) {
  StepBound bound = Learned(1, milliseconds(250));
  EXPECT_EQ(bound.Of(1), nanoseconds(milliseconds(2500)));
  bound.Learn(1024, milliseconds(700));  // the last piece of a long prompt
  EXPECT_EQ(bound.Of(1), seconds(7)) << "which the next row attends to";
  EXPECT_EQ(bound.Of(1024), seconds(7));
  EXPECT_EQ(bound.Of(2048), seconds(14));
}

TEST(StepBound, ASlowTimeIsForgotten) {
  StepBound bound = Learned(8, seconds(3));
  EXPECT_EQ(bound.Of(8), seconds(30));
  for (int i = 0; i < 100; ++i) bound.Learn(8, milliseconds(20));
  EXPECT_LT(bound.Of(8), seconds(12));
  EXPECT_GT(bound.Of(8), seconds(10)) << "slowly";
  for (int i = 0; i < 500; ++i) bound.Learn(8, milliseconds(20));
  EXPECT_EQ(bound.Of(8), seconds(2));
}

TEST(StepBound, TheMostMayBeLessThanTheLeast) {
  StepBound bound({.most = milliseconds(500)});
  for (int i = 0; i < StepBound::kStepsToLearn; ++i) bound.Learn(1, milliseconds(1));
  EXPECT_EQ(bound.Of(1), nanoseconds(milliseconds(500)));
}

TEST(StepBound, RanksThatShareCpusGetMoreTime) {
  const nanoseconds alone = LeastStepBound(2, 2);
  EXPECT_GE(alone, seconds(2));
  EXPECT_EQ(LeastStepBound(1, 8), alone);
  EXPECT_EQ(LeastStepBound(8, 2), 4 * alone);
  EXPECT_EQ(LeastStepBound(9, 2), 5 * alone);
}

}  // namespace
}  // namespace moebius::rank
