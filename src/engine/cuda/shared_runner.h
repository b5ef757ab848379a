// Runs the steps of a rank that computes together with others: its thread agrees on each step with
// the peers, queues it on the GPU, and hands out what was drawn; while one step runs the next is
// agreed on and queued. A rank without rows takes part in its peers' steps.
//
// With pipeline stages behind this one its own pass is all that the thread waits for; Wait, on the
// engine's thread, brings home what the last stage drew (as in engine/model_runner.h).
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/cuda/cuda_runner.h"
#include "engine/step_sync.h"

namespace moebius::engine {

class SharedRunner final : public StepRunner {
 public:
  // runner: allocated. device: the rank's.
  SharedRunner(std::unique_ptr<CudaRunner> runner, int device, std::unique_ptr<StepSync> sync);
  // Finishes the steps that are queued and drops the others; takes part in the others' steps until
  // they all want to end.
  ~SharedRunner() override;

  StepHandle Launch(const StepPlan& plan) override;
  Result<StepOutput> Wait(StepHandle step, std::chrono::milliseconds timeout) override;
  int64_t NextStep() const override { return sync_->NextStep() + num_launched_ - num_begun_; }
  moe::ExpertStats ExpertLoad() const override { return runner_->ExpertLoad(); }
  RankLoad Load() const override { return runner_->Load(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Step {
    const StepPlan* plan = nullptr;
    Result<StepOutput> output;
  };
  // What is to be done next by the engine's wish.
  struct Wish {
    const StepPlan* plan = nullptr;  // not begun yet
    bool cancelled = false;          // it came before a fault that is known
    bool wants_end = false;
  };

  void DeviceLoop();
  Wish NextWish();
  bool IsForPeers() const;
  // False: all ranks want to end.
  bool Begin(const StepPlan* plan, bool wants_end);
  void FinishNext();
  void Publish(Result<StepOutput> output);
  void PublishExpertLoad();
  void Fail(const Error& error);
  void Rest();
  bool has_later_stages() const { return sync_->num_stages() > 1; }
  // For engine::DropSteps.
  std::optional<bool> TakeUnwanted();
  Step& StepAt(int64_t index) { return steps_[static_cast<size_t>(index) % steps_.size()]; }

  std::unique_ptr<CudaRunner> runner_;
  const int device_;
  std::unique_ptr<StepSync> sync_;

  // The thread's own.
  const StepPlan idle_plan_{};
  std::deque<const StepPlan*> flying_;  // queued and not finished, in order
  Status fault_;                        // ranks cannot go on together
  Clock::time_point last_own_;          // when a step with rows of this rank was handed out
  int num_rests_ = 0;                   // in a row
  Clock::time_point load_published_;
  bool is_load_stale_ = true;

  std::atomic<int64_t> num_begun_ = 0;  // of the engine's steps; it looks, too

  // Shared with the engine thread, under mutex_: as in engine/model_runner.h.
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<Step> steps_;
  int64_t num_launched_ = 0;
  int64_t num_done_ = 0;
  int64_t num_waited_ = 0;
  bool has_fault_ = false;
  int64_t num_skipped_ = 0;
  bool is_stopping_ = false;
  bool begins_none_ = false;  // the thread has seen that
  // What was begun is over on all stages, or lost: memory that they share may go when all ranks
  // end.
  bool is_home_ = false;

  std::thread thread_;
};

}  // namespace moebius::engine
