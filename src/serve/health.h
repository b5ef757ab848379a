// What /health and its kin say, from what engine and server say of themselves. Pure functions.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/engine_stats.h"

namespace moebius::serve {

struct HealthInput {
  Status engine;              // EngineClient::Health
  engine::EngineStats stats;  // only has_work, seconds_without_progress, num_steps are read
  double stall_seconds = 30;  // ServerOptions'
  bool is_draining = false;
};

// OK, or the first reason to send requests elsewhere: the engine is unhealthy, it has work and no
// step has been done for stall_seconds, the server is draining.
Status JudgeHealth(const HealthInput& input);

// The same without draining: whether the engine gets on.
Status JudgeProgress(const HealthInput& input);

// {"has_work": ..., "seconds_without_progress": ..., "steps": ..., "status": "ok"} with the reason
// in place of "ok".
std::string ProgressJson(const HealthInput& input);

}  // namespace moebius::serve
