// A plan's samples as the sample operation wants them: lists in place, and the output tokens that
// the plan did not know yet counted in. Owned by a runner's device thread.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "engine/step_plan.h"
#include "engine/step_runner.h"
#include "kernels/ops.h"

namespace moebius::engine {

class SampleInputs {
 public:
  // `tokens`: the plan's, with the previous step's rows filled in. What rows() and results() view
  // lives until the next Prepare, as long as the plan and `output`, whose lists are sized here.
  void Prepare(const StepPlan& plan, std::span<const TokenId> tokens, StepOutput* output);

  std::span<const kernels::SampleRow> rows() const { return rows_; }
  std::span<kernels::SampleResult> results() { return results_; }

 private:
  void CountPending(TokenId token, kernels::SampleRow* row);

  std::vector<kernels::SampleRow> rows_;
  std::vector<kernels::SampleResult> results_;
  std::deque<std::vector<TokenId>> ids_;  // lists that a pending token was added to
  std::deque<std::vector<int32_t>> counts_;
};

}  // namespace moebius::engine
