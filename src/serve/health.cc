#include "serve/health.h"

#include <nlohmann/json.hpp>

namespace moebius::serve {

Status JudgeProgress(const HealthInput& input) {
  if (!input.engine) {
    return MakeError(ErrorCode::kUnavailable, "the engine is unhealthy: {}",
                     input.engine.error().message());
  }
  const engine::EngineStats& stats = input.stats;
  if (stats.has_work && stats.seconds_without_progress > input.stall_seconds) {
    return MakeError(ErrorCode::kUnavailable,
                     "the engine has work and has done no step for {:.1f} s, expected one every "
                     "{:.1f} s at least",
                     stats.seconds_without_progress, input.stall_seconds);
  }
  return {};
}

Status JudgeHealth(const HealthInput& input) {
  MOEBIUS_TRY(JudgeProgress(input));
  if (input.is_draining) {
    return MakeError(ErrorCode::kUnavailable, "the server is shutting down");
  }
  return {};
}

std::string ProgressJson(const HealthInput& input) {
  const Status health = JudgeHealth(input);
  const nlohmann::json json = {{"has_work", input.stats.has_work},
                               {"seconds_without_progress", input.stats.seconds_without_progress},
                               {"steps", input.stats.num_steps},
                               {"status", health ? "ok" : health.error().message()}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace moebius::serve
