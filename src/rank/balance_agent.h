// A rank's part in rebalancing: the mover thread, which fetches what a plan's slots need and serves
// its peers, and at world rank 0 the planner. Made after the model is loaded; goes before the
// model's weights do, and after the device thread's last Flip. Its threads end by themselves,
// quietly, when the deployment's abort word is set.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <thread>

#include "base/result.h"
#include "moe/migrate/expert_store.h"
#include "rank/balance_board.h"
#include "rank/balance_layout.h"
#include "rank/expert_mail.h"
#include "rank/expert_mover.h"
#include "rank/rebalancer.h"

namespace moebius::rank {

struct BalanceAgentOptions {
  MailOptions mail = {};  // with the rank and the abort word
  BalanceLayout layout = {};
  // Of the planner: at world rank 0, where there shall be plans.
  std::optional<RebalancerOptions> planner = {};
};

class BalanceAgent {
 public:
  // store: of this rank; outlives this, as does the board's memory.
  BalanceAgent(const BalanceBoard& board, BalanceAgentOptions options, moe::ExpertStore* store);
  ~BalanceAgent();

  // The threads begin, once; before it nothing touches the store. For a start that fails between
  // the two, and takes the model with it.
  void Start();

  // The epoch that a step may have as far as this rank knows. Any thread.
  uint64_t Committable() const { return board_.committable(); }

  // The next steps are of this epoch. The device thread, between steps; a comparison alone where it
  // is the epoch of the step before. kInternal: this rank has prepared no such change.
  Status Flip(uint64_t epoch);

 private:
  const BalanceBoard board_;
  const int rank_;
  moe::ExpertStore* const store_;
  uint64_t epoch_ = 0;  // of the device thread
  BalanceLayout layout_;
  std::optional<RebalancerOptions> planner_options_;  // both until Start
  ExpertMover mover_;
  std::thread thread_;
  std::unique_ptr<Rebalancer> planner_;
};

}  // namespace moebius::rank
