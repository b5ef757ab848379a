// What a leader tells its followers of a step: the agreed numbers, then its plan. One flat block
// of bytes. Pure functions, any thread.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "comm/signal.h"
#include "engine/plan_codec.h"
#include "engine/step_sync.h"

namespace moebius::rank {

struct StepMessage {
  engine::SharedStep shared;
  comm::Clock::time_point begin;  // when the deadline was set
  comm::Clock::time_point deadline;
  engine::DecodedPlan plan;  // empty in the last step
};

// plan null: no rows. with_samples: followers draw.
std::vector<std::byte> EncodeStep(const engine::SharedStep& shared, comm::Clock::time_point begin,
                                  comm::Clock::time_point deadline, const engine::StepPlan* plan,
                                  bool with_samples);

// kCorrupt names the field.
Result<StepMessage> DecodeStep(std::span<const std::byte> block, const engine::PlanLimits& limits);

}  // namespace moebius::rank
