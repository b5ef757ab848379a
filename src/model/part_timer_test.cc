#include "model/part_timer.h"

#include <gtest/gtest.h>

#include <string>

namespace moebius::model {
namespace {

std::string marks;

TEST(PartTimer, MarksEachPartWhereItBeginsAndEnds) {
  marks.clear();
  PartTimes times;
  times.mark = [](const char* part) { marks += part != nullptr ? std::string("<") + part : ">"; };
  {
    PartTimer timer(&times, &PartTimes::experts);
    timer.Next(&PartTimes::dispatch);
    timer.Next(&PartTimes::experts);
    timer.Next(&PartTimes::combine);
  }
  {
    const PartTimer timer(&times, &PartTimes::attention);
  }
  {
    const PartTimer timer(&times, &PartTimes::head);
  }
  EXPECT_EQ(marks, "<experts><dispatch><experts><combine><attention><head>");
  EXPECT_GT(times.experts, 0);
  EXPECT_GT(times.head, 0);
}

TEST(PartTimer, NobodyNeedsToKnow) {
  PartTimer timer(nullptr, &PartTimes::experts);
  timer.Next(&PartTimes::combine);
}

}  // namespace
}  // namespace moebius::model
