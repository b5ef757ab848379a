// What one step did, for a log: made by the engine thread when the step is committed. Plain values.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace moebius::engine {

struct StepRecord {
  int64_t step_id = 0;
  double unix_time = 0;  // when it was committed
  // Rows.
  int64_t num_prefill_tokens = 0;
  int64_t num_decode_tokens = 0;
  int64_t num_requests = 0;
  // After the step.
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_kv_blocks = 0;
  int64_t num_used_kv_blocks = 0;
  int64_t num_preemptions = 0;  // since the start
  // Seconds.
  double schedule = 0;  // planning and committing
  double wait = 0;      // the engine thread waiting for the step
  double device = 0;    // the whole step on the device, of which:
  double attention = 0;
  double experts = 0;  // routing, exchange and expert products
  double other = 0;    // embedding, dense layers, norms
  double head = 0;     // logits
  double sampling = 0;
  // Assignments of this step, [num_layers, num_experts] of the MoE layers; empty: not counted.
  // Lives until the observer returns.
  std::span<const int32_t> expert_counts;
  int64_t num_experts = 0;
};

// Called on the engine's thread: it must be quick. As a TokenSink it may call Submit and Cancel.
using StepObserver = std::function<void(const StepRecord&)>;

}  // namespace moebius::engine
