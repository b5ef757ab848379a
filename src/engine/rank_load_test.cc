#include "engine/rank_load.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace moebius::engine {
namespace {

RankLoad Step(int64_t number) {
  return {.num_steps = 1,
          .num_empty_steps = number % 2,
          .num_rows = 3,
          .num_expert_rows = 12,
          .num_home_rows = 5,
          .num_copy_rows = 2,
          .dispatch_bytes = 100,
          .combine_bytes = 50,
          .num_latency_steps = 1,
          .num_throughput_steps = 0,
          .last_step = number,
          .seconds = 0.5,
          .parts = {.attention = 0.25, .experts = 0.125, .wait = 0.0625, .other = 0.0625}};
}

TEST(RankCounters, AddUpSteps) {
  RankCounters counters;
  for (int64_t number = 10; number < 14; ++number) counters.Add(Step(number));
  const RankLoad load = counters.Read();
  EXPECT_EQ(load.num_steps, 4);
  EXPECT_EQ(load.num_empty_steps, 2);
  EXPECT_EQ(load.num_rows, 12);
  EXPECT_EQ(load.num_expert_rows, 48);
  EXPECT_EQ(load.num_home_rows, 20);
  EXPECT_EQ(load.num_copy_rows, 8);
  EXPECT_EQ(load.dispatch_bytes, 400);
  EXPECT_EQ(load.combine_bytes, 200);
  EXPECT_EQ(load.num_latency_steps, 4);
  EXPECT_EQ(load.num_throughput_steps, 0);
  EXPECT_EQ(load.last_step, 13);
  EXPECT_DOUBLE_EQ(load.seconds, 2);
  EXPECT_DOUBLE_EQ(load.parts.attention, 1);
  EXPECT_DOUBLE_EQ(load.parts.dispatch, 0);
  EXPECT_DOUBLE_EQ(load.parts.wait, 0.25);
}

TEST(RankCounters, ZerosAreARankThatHasDoneNothing) {
  alignas(RankCounters) std::byte memory[sizeof(RankCounters)] = {};
  const RankLoad load = reinterpret_cast<const RankCounters*>(memory)->Read();
  EXPECT_EQ(load.num_steps, 0);
  EXPECT_EQ(load.last_step, -1);
  EXPECT_EQ(load.seconds, 0);
}

TEST(RankCounters, AreReadWhileTheyGrow) {
  RankCounters counters;
  std::atomic<bool> ends = false;
  std::thread reader([&] {
    RankLoad last;
    while (!ends) {
      const RankLoad load = counters.Read();
      EXPECT_GE(load.num_steps, last.num_steps);
      EXPECT_GE(load.last_step, last.last_step);
      last = load;
    }
  });
  for (int64_t number = 0; number < 20000; ++number) counters.Add(Step(number));
  ends = true;
  reader.join();
  EXPECT_EQ(counters.Read().num_rows, 60000);
}

}  // namespace
}  // namespace moebius::engine
