// Runs planned steps on a device, one after the other in the order of Launch. Called by the engine
// thread only; the work happens elsewhere (a device thread, a stream, other ranks).
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/step_plan.h"
#include "moe/expert_stats.h"

namespace moebius::engine {

// Steps launched and not yet waited for. Two let the host plan one while the device runs another.
constexpr int kMaxStepsInFlight = 2;

struct StepHandle {
  int64_t step_id = -1;
};

struct SampledToken {
  TokenId token = -1;  // outside the vocabulary: the row's logits were no numbers
  float logprob = 0.0f;
  int32_t rank = 0;
  int64_t top_begin = 0;  // in top_tokens and top_logprobs
  int64_t num_top = 0;
};

struct StepOutput {
  int64_t step_id = -1;
  std::vector<SampledToken> sampled;  // as StepPlan::samples
  std::vector<TokenId> top_tokens;
  std::vector<float> top_logprobs;
  double device_seconds = 0;

  // Only where the runner was asked to measure.
  struct Parts {  // of device_seconds
    double attention = 0;
    double experts = 0;
    double other = 0;
    double head = 0;
    double sampling = 0;
  };
  Parts parts;
  std::vector<int32_t> expert_counts;  // assignments of this step, [MoE layers, num_experts]
  int64_t num_experts = 0;
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // Queues the step and returns. The plan stays as it is until Wait for it has returned. At most
  // kMaxStepsInFlight steps may be out.
  virtual StepHandle Launch(const StepPlan& plan) = 0;

  // Waits for the oldest step that is out. A fault of the device in this step shows here. The steps
  // launched before a fault was waited for do not run: their Wait gives kCancelled. kDeadline: the
  // step is still running after `timeout`; the runner can then only be destroyed.
  virtual Result<StepOutput> Wait(StepHandle step, std::chrono::milliseconds timeout) = 0;

  // Assignments since the start, as of a moment ago. Any thread.
  virtual moe::ExpertStats ExpertLoad() const = 0;
};

}  // namespace moebius::engine
