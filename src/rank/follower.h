// A rank that plans nothing: runs the steps that its leader sends until the last one.
#pragma once

#include <chrono>
#include <memory>

#include "engine/device_runner.h"
#include "engine/plan_codec.h"
#include "engine/step_executor.h"
#include "rank/balance_agent.h"
#include "rank/links.h"

namespace moebius::rank {

// Runs on the calling thread, the rank's device thread. OK: the leader wanted to end. Else why the
// ranks could not go on; they all know then.
// balance: null where experts stay.
Status Follow(Links& links, engine::StepExecutor& executor, const engine::PlanLimits& limits,
              BalanceAgent* balance = nullptr);
// The same on a GPU.
Status Follow(Links& links, engine::DeviceFollower& follower, const engine::PlanLimits& limits,
              BalanceAgent* balance = nullptr);

}  // namespace moebius::rank
