// What one step did, for a log: made by the engine thread when the step is committed. Plain values.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "engine/rank_load.h"
#include "moe/placement.h"

namespace moebius::engine {

struct StepRecord {
  int64_t step_id = 0;
  int64_t dp_rank = 0;   // whose step this is
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
  StepParts parts;
  // Of this rank's rows and results that went to others.
  int64_t dispatch_bytes = 0;
  int64_t combine_bytes = 0;
  int64_t exchange_mode = 0;  // moe::ExchangeMode; 0: nothing was exchanged
  // Rows of each data-parallel rank in the step that they took together; empty: they take none so.
  // Lives until the observer returns.
  std::span<const int64_t> dp_rows;
  // Assignments of this step, [num_layers, num_experts] of the MoE layers; empty: not counted.
  // Lives until the observer returns.
  std::span<const int32_t> expert_counts;
  int64_t num_experts = 0;
  int64_t experts_per_token = 0;
  // That whole experts are spread over, the first ones on the first; 0: they are not.
  int64_t num_expert_ranks = 0;
  int64_t epoch = 0;  // of the placement that the step used
  // That placement, where experts are spread; null: whoever asks comes too late to be told.
  std::shared_ptr<const moe::PlacementState> placement = nullptr;
};

// Called on the engine's thread: it must be quick. As a TokenSink it may call Submit and Cancel.
using StepObserver = std::function<void(const StepRecord&)>;

}  // namespace moebius::engine
