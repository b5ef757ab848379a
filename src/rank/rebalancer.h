// The planner of a deployment, a thread of world rank 0's process: looks at the load of experts now
// and then, plans layers that gain most by it, and sees the plan through (rank/balance_board.h). A
// plan that fails is dropped with a warning, and serving goes on with the placement there is.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "base/result.h"
#include "comm/signal.h"
#include "moe/expert_stats.h"
#include "rank/balance_board.h"
#include "rank/balance_layout.h"
#include "rank/update_choice.h"

namespace moebius::rank {

struct RebalancerOptions {
  UpdateChoiceOptions choice = {};
  int64_t step_interval = 100;  // steps from one plan to the next, at least
  std::chrono::nanoseconds deadline = std::chrono::seconds(10);  // of a plan, until all are ready
  std::chrono::nanoseconds period = std::chrono::milliseconds(20);  // between looks at the steps
  comm::AbortWord* abort = nullptr;
  // What all ranks have routed and the steps that they have done since the start.
  std::function<moe::ExpertStats()> load = {};
  std::function<int64_t()> num_steps = {};
};

class Rebalancer {
 public:
  // The thread starts at once. The board's memory outlives this.
  Rebalancer(const BalanceBoard& board, BalanceLayout layout, RebalancerOptions options);
  // A plan under way is dropped.
  ~Rebalancer();

 private:
  void Run();
  // Until then or the deadline, or until this is ending.
  void WaitUntil(const std::function<bool()>& is_over, comm::Clock::time_point deadline);
  void SeeThrough(const BalancePlan& plan);
  // All ranks' words are `number`; done: what that means, for whoever wonders.
  void WaitForAll(std::atomic<uint64_t> BalanceCell::* word, uint64_t number, const char* done);
  bool AreAll(std::atomic<uint64_t> BalanceCell::* word, uint64_t number) const;
  int FirstFailed(uint64_t number) const;  // a rank; negative: none has
  int64_t LongestFlip() const;             // nanoseconds, to the last epoch
  std::string WhyNotReady(uint64_t number) const;
  bool is_ending() const;

  const BalanceBoard board_;
  const RebalancerOptions options_;
  UpdateChoice choice_;
  int drops_in_a_row_ = 0;
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

}  // namespace moebius::rank
