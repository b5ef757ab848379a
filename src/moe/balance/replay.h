// What a balancing policy would have done to a sequence of loads: it plans from the decayed past
// and is judged on what comes next. Pure but for the clock that times the planning. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moe/balance/cost.h"
#include "moe/balance/load_trace.h"
#include "moe/balance/policy.h"

namespace moebius::moe {

struct ReplayOptions {
  double decay = 0.9;          // of the past, by window
  int windows_per_update = 1;  // between plans
  // Of kImprove: no chance movement of a steady load is worth a slot.
  ImproveOptions improve{.min_gain = 0.02};
  double bytes_per_expert = 0;
  ExpertCost cost;    // judges every policy; whether kImprove plans by one says improve.cost
  double tokens = 0;  // tokens x top_k of a step, for the predicted time; 0: as a window has
};

// Of the windows after the first; the first plan places all slots and is not counted as an update.
struct ReplayResult {
  std::string policy;
  int num_updates = 0;
  double imbalance = 0;          // max / mean - 1 by rank, mean of windows and layers
  double planned_imbalance = 0;  // the same on the loads planned from
  double best_imbalance = 0;     // BestImbalance of the judged loads
  int64_t slots_rewritten = 0;   // by all updates, all layers
  double rewritten_share = 0;    // of all slots, an update
  double bytes = 0;              // slots_rewritten x bytes_per_expert
  double step_seconds = 0;       // predicted, all layers of a step
  double planning_seconds = 0;   // of all layers, a plan
};

// No policy: LinearSlots all the time. kInvalidArgument: the trace, the shape or what the policy
// cannot plan for.
Result<ReplayResult> Replay(const LoadTrace& trace, const SlotShape& shape,
                            std::optional<BalancePolicy> policy, const ReplayOptions& options);

// Lines of a table, a policy each, for a terminal.
std::string ReplayTable(std::span<const ReplayResult> results);

}  // namespace moebius::moe
