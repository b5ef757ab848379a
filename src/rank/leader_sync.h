// A leader's side of a step: agrees with the other leaders, hands the plan to its followers, and
// brings home what was drawn. Threads as in engine/step_sync.h: the device thread begins and ends
// steps; with pipeline stages the engine thread collects, from a ring of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/step_sync.h"
#include "rank/balance_agent.h"
#include "rank/links.h"
#include "rank/step_bound.h"

namespace moebius::rank {

class LeaderSync final : public engine::StepSync {
 public:
  // links: this rank's; outlives this. A step that takes longer than its bound has failed. Where
  // data-parallel ranks share steps prompts are computed in one of prefill_interval.
  // pads_decodes: this rank can run steps that only decode with more rows than it has.
  // balance: null where experts stay.
  LeaderSync(Links* links, const StepBoundOptions& bound, int64_t prefill_interval,
             bool pads_decodes = false, std::unique_ptr<BalanceAgent> balance = nullptr)
      : links_(links),
        balance_(std::move(balance)),
        prefill_interval_(links->lockstep() != nullptr ? prefill_interval : 1),
        pads_decodes_(pads_decodes),
        bound_(bound) {}

  bool draws() const override { return links_->draws(); }
  bool hears_tokens() const override { return links_->hears_tokens(); }
  int num_stages() const override { return links_->num_stages(); }
  void Ring() override;
  void WaitForWork(std::chrono::steady_clock::time_point until) override;
  bool IsWanted() const override;
  bool MayBegin(const engine::StepPlan& plan) const override {
    return prefill_interval_ <= 1 || !plan.has_prefill || next_step_ % prefill_interval_ == 0;
  }
  int64_t NextStep() const override { return step_to_come_.load(std::memory_order_relaxed); }
  Result<engine::SharedStep> Begin(const engine::StepPlan* plan, bool wants_end) override;
  Status End(const engine::StepPlan& plan, engine::StepOutput* output) override;
  Result<engine::StepOutput> Collect(std::chrono::milliseconds timeout) override;
  void Abort() override;
  void Publish(const moe::ExpertStats& stats) override {
    links_->expert_counts().Publish(links_->rank().value(), stats);
  }
  engine::RankCounters& counters() override {
    return links_->control().Counters(links_->rank().value());
  }
  const std::atomic<int64_t>& waited_ns() const override { return links_->waited_ns(); }

 private:
  struct Begun {
    comm::Clock::time_point time;
    comm::Clock::time_point deadline;
    int64_t rows = 0;  // of the fullest data-parallel rank
  };
  // The oldest of begun_ is over.
  void Learn();

  // deadline: of the step that is agreed on.
  Result<engine::SharedStep> Agree(const engine::StepPlan* plan, bool wants_end,
                                   comm::Clock::time_point* deadline);

  Links* links_;
  const std::unique_ptr<BalanceAgent> balance_;
  int64_t epoch_ = 0;  // of the last step
  const int64_t prefill_interval_;
  const bool pads_decodes_;
  std::chrono::nanoseconds last_bound_{0};  // of the step before, which others may still run
  int64_t next_step_ = 0;
  std::atomic<int64_t> step_to_come_{0};  // the same, but for a step that is being agreed on
  std::mutex mutex_;                      // with several stages steps end on the engine's thread
  StepBound bound_;
  std::deque<Begun> begun_;  // steps that have not ended, in order
  // Where there are no other leaders.
  comm::Signal bell_;
  std::atomic<uint32_t> num_rings_{0};
  uint32_t num_rings_taken_ = 0;
};

// What is left to do after a rank's pass, whoever it is: the planning rank and its followers hear
// what was drawn.
Status PassOutput(Links& links, const engine::StepPlan& plan, engine::StepOutput* output);

}  // namespace moebius::rank
