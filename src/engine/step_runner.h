// Runs planned steps on a device, one after the other in the order of Launch. Called by the engine
// thread only; the work happens elsewhere (a device thread, a stream, other ranks).
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/rank_load.h"
#include "engine/step_plan.h"
#include "moe/exchange/mode.h"
#include "moe/expert_stats.h"

namespace moebius::engine {

// Steps launched and not yet waited for. Two let the host plan one while the device runs another;
// where a step passes pipeline stages there is one for each of them, if that is more.
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
  double device_seconds = 0;  // the whole step, what ranks agreed on before it included
  StepParts parts;            // of those
  // Of this rank: what left it, and how.
  int64_t dispatch_bytes = 0;
  int64_t combine_bytes = 0;
  moe::ExchangeMode exchange_mode = moe::ExchangeMode::kAuto;  // kAuto: nothing was exchanged
  std::vector<int64_t> dp_rows;  // by data-parallel rank; empty: they share no steps
  int64_t epoch = 0;             // of the placement of experts that the step used

  // Only where the runner was asked to measure: assignments of this step, [MoE layers, num_experts]
  std::vector<int32_t> expert_counts;
  int64_t num_experts = 0;
  int64_t experts_per_token = 0;
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // Whether a plan is wanted now: one that is made late knows of requests that came meanwhile. A
  // runner that cannot tell always wants one.
  virtual bool IsTimeToPlan() const { return true; }
  // kDeadline: no step has ended for `timeout`, and the device may hang.
  virtual Status WaitUntilTimeToPlan(std::chrono::milliseconds /*timeout*/) { return {}; }
  // It was time, and no request has anything to compute: ranks that share steps need not wait for
  // this one's plan.
  virtual void HasNoPlan() {}

  // Queues the step and returns. The plan stays as it is until Wait for it has returned. At most as
  // many steps may be out as there are pipeline stages, or kMaxStepsInFlight if that is more.
  virtual StepHandle Launch(const StepPlan& plan) = 0;

  // Waits for the oldest step that is out. A fault of the device in this step shows here. The steps
  // launched before a fault was waited for do not run: their Wait gives kCancelled. kDeadline: no
  // step has ended for `timeout`; the runner can then only be destroyed.
  virtual Result<StepOutput> Wait(StepHandle step, std::chrono::milliseconds timeout) = 0;

  // Which of the steps that ranks share the next one launched will be, if none comes between; one
  // rank alone counts its own. The thread that launches.
  virtual int64_t NextStep() const = 0;

  // Assignments since the start, as of a moment ago. Any thread.
  virtual moe::ExpertStats ExpertLoad() const = 0;
  // What this rank has done; it does not say which one it is. Any thread.
  virtual RankLoad Load() const = 0;
};

}  // namespace moebius::engine
