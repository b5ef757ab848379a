// What an engine can say about itself: counters since its start and gauges of now. Plain values.
#pragma once

#include <cstdint>

#include "base/histogram.h"
#include "moe/expert_stats.h"

namespace moebius::engine {

// Durations of one kind: enough for a mean, a maximum and a Prometheus histogram.
struct DurationStats {
  // Upper bounds in seconds; the last bucket has none.
  static constexpr double kBounds[] = {20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3,   2e-3, 5e-3,
                                       10e-3, 20e-3, 50e-3,  100e-3, 200e-3, 500e-3, 1.0};
  static constexpr int kNumBuckets = 16;

  int64_t count = 0;
  double sum = 0;  // seconds
  double max = 0;
  int64_t buckets[kNumBuckets] = {};  // not cumulative

  void Add(double seconds);
  void Add(const DurationStats& other);
};

struct EngineStats {
  // Gauges.
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_kv_blocks = 0;
  int64_t num_used_kv_blocks = 0;    // some request holds them
  int64_t num_cached_kv_blocks = 0;  // free, but their prefix can still be found

  // Counters.
  int64_t num_steps = 0;
  int64_t num_failed_steps = 0;
  int64_t num_prefill_tokens = 0;  // rows that computed prompt (or recomputed) tokens
  int64_t num_output_tokens = 0;
  int64_t num_dropped_tokens = 0;  // rows of requests that had ended one step before
  int64_t num_prompt_tokens = 0;   // of admitted requests
  int64_t num_cached_tokens = 0;   // of those, found in the prefix cache
  int64_t num_preemptions = 0;
  int64_t num_finished_stop = 0;
  int64_t num_finished_length = 0;
  int64_t num_cancelled = 0;
  int64_t num_failed = 0;

  int64_t num_corrupted = 0;  // requests that ended because their logits were no numbers

  // In seconds. The first two as tokens come out, the others when a request ends, however it ends;
  // one that never came so far (was not admitted, got no token) counts not where that is needed.
  Histogram time_to_first_token;    // from RequestInput::arrival
  Histogram inter_token_latency;    // every gap between two tokens of a request
  Histogram time_per_output_token;  // a request of two and more: (last - first) / (tokens - 1)
  Histogram e2e_latency;            // arrival to the end
  Histogram queue_time;             // arrival to first admission
  Histogram prefill_time;           // first admission to first token
  Histogram decode_time;            // first token to the last
  Histogram inference_time;         // first admission to the last token
  // In tokens.
  Histogram step_tokens;    // of a step
  Histogram prompt_length;  // of a request
  Histogram output_length;
  Histogram max_tokens;              // what it asked for, or else could have had
  Histogram computed_prompt_tokens;  // what the prefix cache did not have

  // As of the call: work is there, and that many seconds have passed since a step was done or work
  // came; 0 without work. A step that hangs makes it grow.
  bool has_work = false;
  double seconds_without_progress = 0;

  DurationStats plan_time;    // scheduler and bookkeeping, a step
  DurationStats device_time;  // forward and sampling, a step
  DurationStats wait_time;    // the engine thread waiting for a step
};

// Empties the histograms and gives them their bounds: those of vllm's metrics, with finer ones
// below 10 ms; lengths up to max_model_len.
void SetBounds(int64_t max_model_len, EngineStats* stats);

// What another engine of the same deployment says, into the total: gauges, counters and durations
// add, the longest time without progress stays.
void Add(const EngineStats& stats, EngineStats* total);

}  // namespace moebius::engine
