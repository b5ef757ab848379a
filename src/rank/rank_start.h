// What every rank does before its first step, as a thread or as a process: opens its links, loads
// its part of the model, agrees on KV blocks with the others.
#pragma once

#include <memory>

#include "engine/device_runner.h"
#include "engine/inproc_engine_client.h"
#include "engine/plan_codec.h"
#include "engine/step_executor.h"
#include "rank/balance_agent.h"
#include "rank/links.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {

// The same on every rank: from the model's configuration and the options.
Result<DeploymentShape> ShapeOf(const RankOptions& options);

// Runs in every rank at once; `pool` is made on the rank's device thread's behalf. A leader gets an
// engine, a follower an executor to be given to Follow.
struct StartedRank {
  std::unique_ptr<engine::InprocEngineClient> engine;
  std::unique_ptr<engine::StepExecutor> executor;
  std::unique_ptr<engine::DeviceFollower> device_follower;  // instead, on a GPU
  std::unique_ptr<BalanceAgent> balance;  // of either, where experts move; ends before it
  engine::PlanLimits limits;
};
Result<StartedRank> StartRank(Links& links, const RankOptions& options);

}  // namespace moebius::rank
