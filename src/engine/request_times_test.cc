#include "engine/request_times.h"

#include <gtest/gtest.h>

namespace moebius::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The upper bound of the bucket that the only value is in; 0: it is in the last one.
double BucketOf(const Histogram& histogram) {
  EXPECT_EQ(histogram.count(), 1);
  const auto at = std::ranges::find(histogram.counts(), 1) - histogram.counts().begin();
  return at < std::ssize(histogram.bounds()) ? histogram.bounds()[static_cast<size_t>(at)] : 0;
}

TEST(RequestTimes, AWholeLife) {
  EngineStats stats;
  SetBounds(1000, &stats);
  const RequestTimes::TimePoint arrival{seconds(50)};
  RequestTimes times;
  times.arrival = arrival;
  times.admission = arrival + milliseconds(100);
  ObserveToken(arrival + milliseconds(350), &times, &stats);
  ObserveToken(arrival + milliseconds(355), &times, &stats);
  ObserveToken(arrival + milliseconds(451), &times, &stats);
  ObserveEnd(arrival + seconds(2), times,
             {.num_prompt_tokens = 30, .num_cached_tokens = 16, .num_output_tokens = 3}, 400,
             &stats);
  EXPECT_DOUBLE_EQ(stats.time_to_first_token.sum(), 0.350);
  EXPECT_EQ(BucketOf(stats.time_to_first_token), 0.5);
  EXPECT_EQ(stats.inter_token_latency.count(), 2);
  EXPECT_DOUBLE_EQ(stats.inter_token_latency.sum(), 0.101);
  EXPECT_DOUBLE_EQ(stats.time_per_output_token.sum(), 0.101 / 2);
  EXPECT_EQ(BucketOf(stats.time_per_output_token), 0.075);
  EXPECT_DOUBLE_EQ(stats.e2e_latency.sum(), 2);
  EXPECT_EQ(BucketOf(stats.e2e_latency), 2);  // bounds are inclusive
  EXPECT_DOUBLE_EQ(stats.queue_time.sum(), 0.1);
  EXPECT_DOUBLE_EQ(stats.prefill_time.sum(), 0.25);
  EXPECT_DOUBLE_EQ(stats.decode_time.sum(), 0.101);
  EXPECT_DOUBLE_EQ(stats.inference_time.sum(), 0.351);
  EXPECT_EQ(BucketOf(stats.prompt_length), 50);
  EXPECT_EQ(BucketOf(stats.output_length), 5);
  EXPECT_EQ(BucketOf(stats.max_tokens), 500);
  EXPECT_EQ(BucketOf(stats.computed_prompt_tokens), 20);
}

TEST(RequestTimes, WhatNeverCameIsNotCounted) {
  EngineStats stats;
  SetBounds(1000, &stats);
  const RequestTimes::TimePoint arrival{seconds(50)};
  RequestTimes times;
  times.arrival = arrival;
  ObserveEnd(arrival + seconds(1), times, {.num_prompt_tokens = 30}, 400, &stats);
  EXPECT_EQ(stats.e2e_latency.count(), 1);
  EXPECT_EQ(stats.output_length.count(), 1);
  EXPECT_EQ(stats.queue_time.count(), 0);
  EXPECT_EQ(stats.computed_prompt_tokens.count(), 0);
  times.admission = arrival;
  ObserveEnd(arrival + seconds(1), times, {.num_prompt_tokens = 30}, 400, &stats);
  EXPECT_EQ(stats.queue_time.count(), 1);
  EXPECT_EQ(stats.prefill_time.count(), 0);
  ObserveToken(arrival - seconds(1), &times, &stats);  // sent from the future
  EXPECT_EQ(stats.time_to_first_token.sum(), 0);
  ObserveEnd(arrival + seconds(1), times, {.num_prompt_tokens = 30, .num_output_tokens = 1}, 400,
             &stats);
  EXPECT_EQ(stats.prefill_time.count(), 1);
  EXPECT_EQ(stats.time_per_output_token.count(), 0);
  EXPECT_EQ(stats.e2e_latency.count(), 3);
}

TEST(RequestTimes, BoundsAreVllmsAndFiner) {
  EngineStats stats;
  SetBounds(3000, &stats);
  const auto holds = [](const Histogram& histogram, std::initializer_list<double> bounds) {
    EXPECT_TRUE(std::ranges::is_sorted(histogram.bounds()));
    return std::ranges::includes(histogram.bounds(), bounds);
  };
  EXPECT_TRUE(
      holds(stats.inter_token_latency, {.001, .002, .004, .006, .008, .01, .025, .05, .8e2}));
  EXPECT_TRUE(holds(stats.time_to_first_token, {.001, .005, .01, .02, .04, .25, 7.5, 640, 2560}));
  EXPECT_TRUE(holds(stats.e2e_latency, {.01, .3, .5, .8, 1, 1.5, 2, 2.5, 60, 1920, 7680}));
  EXPECT_TRUE(holds(stats.step_tokens, {1, 8, 16, 1024, 16384}));
  EXPECT_TRUE(std::ranges::equal(
      stats.prompt_length.bounds(),
      std::initializer_list<double>{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000}));
}

}  // namespace
}  // namespace moebius::engine
