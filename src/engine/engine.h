// The loop between requests and steps: takes in what clients ask, plans step n + 1 while step n
// runs (as late as the runner allows, so that it knows what came meanwhile), commits what comes
// back. One thread runs Run; any thread may call the rest. They meet in one queue of commands
// (`submissions_`, at most max_num_waiting, and `cancels_`, merged by request) under one mutex.
//
// A failed step fails the requests that had rows in it; the others go on. The engine is unhealthy,
// and stays so, once a step passed its deadline (the device may hang) or kMaxFailuresInARow steps
// have failed in a row: every request ends with the error and no more are taken.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/trace.h"
#include "engine/engine_stats.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/step_record.h"
#include "engine/step_runner.h"

namespace moebius::engine {

struct EngineConfig {
  SchedulerConfig scheduler;
  int64_t max_num_waiting = 4096;
  bool async_scheduling = true;
  int64_t prefill_interval = 1;  // of steps, one in so many computes prompts
  TraceTarget trace;
  std::chrono::milliseconds step_timeout{std::chrono::minutes(10)};
  StepObserver on_step;
};

constexpr int kMaxFailuresInARow = 3;

class Engine {
 public:
  // The runner outlives Run and is destroyed before the engine, whose plans it may still read.
  Engine(const EngineConfig& config, StepRunner* runner);

  // Serves until Stop; then every request ends as cancelled. Once.
  void Run();
  void Stop();

  // A validated request; costs a move and a lock that is held for microseconds. kUnavailable: the
  // queue is full, or the engine is unhealthy or stopping.
  Result<RequestId> Submit(RequestInput input, TokenSink sink);
  void Cancel(RequestId request, FinishReason reason);
  EngineStats Stats() const;
  Status Health() const;

 private:
  struct Submission {
    RequestId id;
    RequestInput input;
    TokenSink sink;
  };

  bool ApplyCommands();
  void WaitForCommands();
  bool MayPrefill();
  // False: it is not yet time to plan the next one.
  bool LaunchSteps();
  void AwaitTimeToPlan();
  void FinishOldestStep();
  void HandleFault(const Error& error);
  void BecomeUnhealthy(const Error& error);
  void PublishStats();
  void TellObserver(const StepOutput& output, const StepRows& rows, double schedule,
                    double wait) const;

  // The engine thread's own.
  const EngineConfig config_;
  StepRunner* runner_;
  Scheduler scheduler_;
  std::deque<StepHandle> steps_;           // in flight, oldest first
  int64_t num_plans_without_prefill_ = 0;  // since one might have had some
  Trace trace_;
  double plan_seconds_ = 0;  // since the last step was done
  double wait_seconds_ = 0;  // the same
  DurationStats plan_time_;
  DurationStats device_time_;
  DurationStats wait_time_;
  int num_failures_in_a_row_ = 0;
  bool has_progressed_ = false;  // a step was done since the last PublishStats
  bool is_dead_ = false;

  mutable std::mutex mutex_;
  std::condition_variable commanded_;
  std::vector<Submission> submissions_;
  std::unordered_map<RequestId, FinishReason> cancels_;
  bool is_stopping_ = false;
  int64_t next_id_ = 0;
  EngineStats stats_;  // as of the last PublishStats; only the engine thread writes it
  std::optional<Error> fault_;
  bool has_work_ = false;
  std::chrono::steady_clock::time_point last_progress_;  // a step was done, or work came to none
};

}  // namespace moebius::engine
