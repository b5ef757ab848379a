#include "base/check.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

TEST(CheckDeathTest, PrintsPlaceConditionAndOperands) {
  const int num_slots = 3;
  EXPECT_DEATH(MOEBIUS_CHECK_EQ(num_slots, 4), "check_test.cc:.*num_slots == 4 \\(3 against 4\\)");
  EXPECT_DEATH(MOEBIUS_CHECK(num_slots > 5), "check failed: num_slots > 5");
}

TEST(Check, ATrueConditionEvaluatesItsOperandsOnce) {
  int calls = 0;
  const auto next = [&] { return ++calls; };
  MOEBIUS_CHECK_EQ(next(), 1);
  MOEBIUS_CHECK_LE(next(), 2);
  MOEBIUS_CHECK(next() == 3);
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace moebius
