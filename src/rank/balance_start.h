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

// This rank's share of the experts in the node's memory, where they move and that is wished. The
// others may ask for them when all ranks are past it. Errors are those of moe/migrate/host_pool.h.
Status MakeHostPool(Links& links, model::Model& model);

// What one expert takes: bytes to read and to move, operations for a row.
struct ExpertSize {
  int64_t bytes = 0;
  double flops_of_row = 0;
};
// Of this rank's slots; zeros where it has none (a pipeline stage without experts).
ExpertSize ExpertSizeOf(const Links& links, model::Model& model);

// To be started when nothing of the rank's start can fail any more. Null where experts stay.
// model: this rank's; it outlives what comes back. expert: the largest of any rank.
std::unique_ptr<BalanceAgent> MakeBalanceAgent(Links& links, model::Model& model,
                                               const ExpertSize& expert);

}  // namespace moebius::rank
