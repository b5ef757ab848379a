#include "engine/engine_stats.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace moebius::engine {
namespace {

constexpr double kFirstTokenBounds[] = {.001, .002, .004, .005, .006, .008, .01, .02, .04,
                                        .06,  .08,  .1,   .25,  .5,   .75,  1,   2.5, 5,
                                        7.5,  10,   20,   40,   80,   160,  640, 2560};
constexpr double kTokenBounds[] = {.001, .002, .004, .006, .008, .01, .025, .05, .075, .1, .15, .2,
                                   .3,   .4,   .5,   .75,  1,    2.5, 5,    7.5, 10,   20, 40,  80};
constexpr double kRequestBounds[] = {.001, .002, .005, .01, .02, .05, .1,  .2,   .3,  .5,
                                     .8,   1,    1.5,  2,   2.5, 5,   10,  15,   20,  30,
                                     40,   50,   60,   120, 240, 480, 960, 1920, 7680};
constexpr double kStepBounds[] = {1,   2,   4,    8,    16,   32,   64,   128,
                                  256, 512, 1024, 2048, 4096, 8192, 16384};

// 1, 2, 5, 10, 20, 50 ... up to `max`.
std::vector<double> LengthBounds(int64_t max) {
  std::vector<double> bounds;
  for (int64_t power = 1; power <= max; power *= 10) {
    for (const int64_t digit : {1, 2, 5}) {
      if (power * digit <= max) bounds.push_back(static_cast<double>(power * digit));
    }
  }
  return bounds;
}

}  // namespace

void SetBounds(int64_t max_model_len, EngineStats* stats) {
  stats->time_to_first_token = Histogram(kFirstTokenBounds);
  stats->inter_token_latency = Histogram(kTokenBounds);
  stats->time_per_output_token = Histogram(kTokenBounds);
  for (Histogram EngineStats::* times :
       {&EngineStats::e2e_latency, &EngineStats::queue_time, &EngineStats::prefill_time,
        &EngineStats::decode_time, &EngineStats::inference_time}) {
    stats->*times = Histogram(kRequestBounds);
  }
  stats->step_tokens = Histogram(kStepBounds);
  const std::vector<double> lengths = LengthBounds(max_model_len);
  for (Histogram EngineStats::* tokens :
       {&EngineStats::prompt_length, &EngineStats::output_length, &EngineStats::max_tokens,
        &EngineStats::computed_prompt_tokens}) {
    stats->*tokens = Histogram(lengths);
  }
}

void DurationStats::Add(double seconds) {
  static_assert(std::size(kBounds) + 1 == kNumBuckets);
  ++count;
  sum += seconds;
  max = std::max(max, seconds);
  ++buckets[std::lower_bound(std::begin(kBounds), std::end(kBounds), seconds) -
            std::begin(kBounds)];
}

void DurationStats::Add(const DurationStats& other) {
  count += other.count;
  sum += other.sum;
  max = std::max(max, other.max);
  for (int i = 0; i < kNumBuckets; ++i) buckets[i] += other.buckets[i];
}

void Add(const EngineStats& stats, EngineStats* total) {
  // A new field belongs into one of the lists.
  static_assert(sizeof(EngineStats) == 18 * sizeof(int64_t) + 13 * sizeof(Histogram) +
                                           2 * sizeof(double) + 3 * sizeof(DurationStats));
  for (int64_t EngineStats::* number :
       {&EngineStats::num_running, &EngineStats::num_waiting, &EngineStats::num_kv_blocks,
        &EngineStats::num_used_kv_blocks, &EngineStats::num_cached_kv_blocks,
        &EngineStats::num_steps, &EngineStats::num_failed_steps, &EngineStats::num_prefill_tokens,
        &EngineStats::num_output_tokens, &EngineStats::num_dropped_tokens,
        &EngineStats::num_prompt_tokens, &EngineStats::num_cached_tokens,
        &EngineStats::num_preemptions, &EngineStats::num_finished_stop,
        &EngineStats::num_finished_length, &EngineStats::num_cancelled, &EngineStats::num_failed,
        &EngineStats::num_corrupted}) {
    total->*number += stats.*number;
  }
  for (Histogram EngineStats::* histogram :
       {&EngineStats::time_to_first_token, &EngineStats::inter_token_latency,
        &EngineStats::time_per_output_token, &EngineStats::e2e_latency, &EngineStats::queue_time,
        &EngineStats::prefill_time, &EngineStats::decode_time, &EngineStats::inference_time,
        &EngineStats::step_tokens, &EngineStats::prompt_length, &EngineStats::output_length,
        &EngineStats::max_tokens, &EngineStats::computed_prompt_tokens}) {
    (total->*histogram).Add(stats.*histogram);
  }
  for (DurationStats EngineStats::* times :
       {&EngineStats::plan_time, &EngineStats::device_time, &EngineStats::wait_time}) {
    (total->*times).Add(stats.*times);
  }
  total->has_work |= stats.has_work;
  total->seconds_without_progress =
      std::max(total->seconds_without_progress, stats.seconds_without_progress);
}

}  // namespace moebius::engine
