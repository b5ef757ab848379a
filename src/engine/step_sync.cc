#include "engine/step_sync.h"

#include <utility>

namespace moebius::engine {

Status BringHome(StepSync& sync, const StepPlan& plan, std::chrono::milliseconds timeout,
                 StepOutput* output) {
  MOEBIUS_ASSIGN(StepOutput drawn, sync.Collect(timeout));
  if (drawn.step_id != plan.step_id ||
      static_cast<int64_t>(drawn.sampled.size()) != plan.num_samples()) {
    return MakeError(ErrorCode::kCorrupt,
                     "the last stage drew {} tokens in step {}, expected {} in step {}",
                     drawn.sampled.size(), drawn.step_id, plan.num_samples(), plan.step_id);
  }
  output->sampled = std::move(drawn.sampled);
  output->top_tokens = std::move(drawn.top_tokens);
  output->top_logprobs = std::move(drawn.top_logprobs);
  return {};
}

void DropSteps(StepSync& sync, const std::function<std::optional<bool>()>& take) {
  constexpr auto kTimeout = std::chrono::minutes(10);  // the step's own deadline comes before
  while (const std::optional<bool> is_away = take()) {
    // Once one of them is lost, so are the others.
    if (*is_away && !sync.Collect(kTimeout)) return;
  }
}

}  // namespace moebius::engine
