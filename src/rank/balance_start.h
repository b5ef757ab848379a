// A rank's part in rebalancing, from what the deployment agreed on. Called once, after the model is
// loaded.
#pragma once

#include <memory>

#include "model/model.h"
#include "rank/balance_agent.h"
#include "rank/links.h"

namespace moebius::rank {

// Where the slots of `shape`, whose experts move, are at the start.
BalanceLayout LayOutSlots(const DeploymentShape& shape);

// Null where experts stay. model: this rank's; it outlives what comes back.
std::unique_ptr<BalanceAgent> StartBalancing(Links& links, model::Model& model);

}  // namespace moebius::rank
