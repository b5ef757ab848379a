// Runs steps of a model on this rank's device: a thread that owns the executor. The engine thread
// hands it plans through a queue of a few (`steps_`); nothing else is shared but the copy of the
// expert counts. With peers (`sync`) it also takes part in steps that bring no rows of its own.
//
// With pipeline stages behind this one the device thread goes on with the next step as soon as its
// own part of one is done; Wait, on the engine's thread, brings home what the last stage drew.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/step_executor.h"
#include "engine/step_runner.h"

namespace moebius::engine {

class ModelRunner : public StepRunner {
 public:
  // sync: what this rank settles with others around each step; null: it is alone.
  explicit ModelRunner(std::unique_ptr<StepExecutor> executor,
                       std::unique_ptr<StepSync> sync = nullptr);
  // Finishes the step that is running and drops the others; takes part in the others' steps until
  // they all want to end.
  ~ModelRunner() override;

  // Whether the device thread and its pool run where they were planned.
  const Status& binding() const { return binding_; }

  // When the device thread is idle, or in the head of a step (a peer's, too) behind which none is
  // queued. Ranks that share steps so plan with the same knowledge: what came during a step is in
  // the next one on all of them; a peer's step waits a little for a plan that is due. With later
  // stages: always, for the next step begins at once.
  bool IsTimeToPlan() const override;
  Status WaitUntilTimeToPlan(std::chrono::milliseconds timeout) override;
  void HasNoPlan() override;
  StepHandle Launch(const StepPlan& plan) override;
  Result<StepOutput> Wait(StepHandle step, std::chrono::milliseconds timeout) override;
  int64_t NextStep() const override;
  moe::ExpertStats ExpertLoad() const override;
  RankLoad Load() const override { return counters_->Read(); }

 private:
  struct Step {
    const StepPlan* plan = nullptr;
    Result<StepOutput> output;
  };

  void DeviceLoop();
  // For the device thread to bring it about. False: no step has ended for so long.
  template <typename Condition>
  bool WaitUntil(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds timeout,
                 const Condition& condition);
  bool has_later_stages() const { return sync_ != nullptr && sync_->num_stages() > 1; }
  bool WantsPlan() const;
  void SetNearEnd();
  // Waits for a plan of this rank, or a step of its peers. Holds `lock` but while it sleeps.
  void WaitForStep(std::unique_lock<std::mutex>& lock);
  // The step of `plan` (null: a peer's, without rows here). False: all ranks want to end.
  bool RunShared(const StepPlan* plan, bool wants_end, Result<StepOutput>* output);
  // For engine::DropSteps.
  std::optional<bool> TakeUnwanted();
  void PublishExpertLoad();
  Step& StepAt(int64_t index) { return steps_[static_cast<size_t>(index) % steps_.size()]; }

  // The device thread's own.
  bool is_cut_off_ = false;  // its peers, or it, have failed: no step can be agreed on any more
  std::unique_ptr<StepExecutor> executor_;
  std::unique_ptr<StepSync> sync_;
  RankCounters* const counters_;  // the executor's, or where the ranks of a deployment have theirs
  StepPlan idle_plan_;            // of a step without rows here
  std::chrono::steady_clock::time_point last_published_;

  // Shared with the engine thread, under mutex_. Steps are counted from the start: those in
  // [num_waited_, num_done_) wait to be fetched, those in [num_done_, num_launched_) to be run.
  mutable std::mutex mutex_;
  std::condition_variable launched_;
  std::condition_variable done_;
  std::vector<Step> steps_;
  int64_t num_launched_ = 0;
  int64_t num_begun_ = 0;
  int64_t num_done_ = 0;
  int64_t num_waited_ = 0;
  int64_t num_ended_ = 0;     // steps, the peers' too
  bool is_near_end_ = true;   // of the step that runs; or none does
  bool is_plan_due_ = false;  // the engine thread is about to launch one, or to say HasNoPlan
  bool has_fault_ = false;    // one that nobody has waited for yet
  int64_t num_skipped_ = 0;   // steps before this one do not run: they came before a known fault
  bool is_stopping_ = false;
  bool begins_none_ = false;  // the device thread has seen that
  bool is_load_stale_ = false;
  moe::ExpertStats expert_load_;

  Status binding_;  // written before the constructor returns
  std::thread thread_;
};

}  // namespace moebius::engine
