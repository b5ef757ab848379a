// Writes down what the scheduler has selected as the plain records of a StepPlan. Engine thread
// only.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/sequence.h"
#include "engine/step_plan.h"

namespace moebius::engine {

// A sequence's part of one step, and what taking it back needs.
struct PlanItem {
  Sequence* sequence = nullptr;
  int64_t first_row = 0;  // the position of its first row
  int64_t num_rows = 0;
  int64_t score_begin =
      0;                  // the rows at these positions score the prompt's next token: the samples
  int64_t score_end = 0;  // before `sample`, from first_score on
  int32_t first_score = 0;
  int32_t sample = -1;             // its place in the step's samples; -1: it draws none
  int32_t input_row = -1;          // where the step before draws its last input token, if that is
                                   // not known yet
  int64_t num_output_planned = 0;  // output tokens before the one to draw, known or not
  int64_t num_new_blocks = 0;      // taken for this step
  bool is_admission = false;
};

// Fills *plan (but for the step ids) with the items, in order. Constraints are asked for their
// masks.
void BuildPlan(const std::vector<PlanItem>& items, int64_t vocab_size, int64_t block_size,
               StepPlan* plan);

// False: masks and bans leave no token that this sample could draw.
bool AllowsAnyToken(const StepPlan& plan, const PlannedSample& sample, int64_t vocab_size);

}  // namespace moebius::engine
