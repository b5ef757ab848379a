#include "engine/engine.h"

#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace moebius::engine {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

Engine::Engine(const EngineConfig& config, StepRunner* runner)
    : config_(config), runner_(runner), scheduler_(config.scheduler) {
  PublishStats();
}

void Engine::Run() {
  while (ApplyCommands()) {
    LaunchSteps();
    PublishStats();
    if (steps_.empty() || is_dead_) {
      WaitForCommands();
    } else {
      FinishOldestStep();
    }
  }
  scheduler_.EndAll(FinishReason::kCancelled, nullptr);
  PublishStats();
}

void Engine::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  commanded_.notify_one();
}

Result<RequestId> Engine::Submit(RequestInput input, TokenSink sink) {
  RequestId id;
  {
    const std::lock_guard lock(mutex_);
    if (fault_) {
      return MakeError(ErrorCode::kUnavailable, "the engine is unhealthy: {}", fault_->message());
    }
    if (is_stopping_) return MakeError(ErrorCode::kUnavailable, "the engine is shutting down");
    const int64_t num_waiting = stats_.num_waiting + static_cast<int64_t>(submissions_.size());
    if (num_waiting >= config_.max_num_waiting) {
      return MakeError(ErrorCode::kUnavailable, "{} requests wait, expected at most {}",
                       num_waiting, config_.max_num_waiting);
    }
    id = RequestId(next_id_++);
    submissions_.push_back({id, std::move(input), std::move(sink)});
  }
  commanded_.notify_one();
  return id;
}

void Engine::Cancel(RequestId request, FinishReason reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!request.valid() || request.value() >= next_id_) return;
    cancels_.try_emplace(request, reason);
  }
  commanded_.notify_one();
}

EngineStats Engine::Stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.num_waiting += static_cast<int64_t>(submissions_.size());
  return stats;
}

Status Engine::Health() const {
  const std::lock_guard lock(mutex_);
  if (fault_) return tl::unexpected(*fault_);
  return {};
}

// False: it is time to stop. What was submitted before that has been taken in.
bool Engine::ApplyCommands() {
  std::vector<Submission> submissions;
  std::unordered_map<RequestId, FinishReason> cancels;
  bool is_stopping;
  {
    const std::lock_guard lock(mutex_);
    submissions.swap(submissions_);
    cancels.swap(cancels_);
    is_stopping = is_stopping_;
    stats_.num_waiting += static_cast<int64_t>(submissions.size());
  }
  for (Submission& submission : submissions) {
    scheduler_.Add(submission.id, std::move(submission.input), std::move(submission.sink));
  }
  for (const auto& [id, reason] : cancels) scheduler_.Cancel(id, reason);
  // One may have slipped in before the fault was known.
  if (is_dead_ && !submissions.empty()) scheduler_.EndAll(FinishReason::kError, &*fault_);
  return !is_stopping;
}

void Engine::WaitForCommands() {
  std::unique_lock lock(mutex_);
  commanded_.wait(lock, [&] { return is_stopping_ || !submissions_.empty() || !cancels_.empty(); });
}

void Engine::LaunchSteps() {
  const size_t depth = config_.async_scheduling ? kMaxStepsInFlight : 1;
  while (!is_dead_ && steps_.size() < depth) {
    const Clock::time_point begin = Clock::now();
    const StepPlan* plan = scheduler_.Plan();
    plan_seconds_ += SecondsSince(begin);
    if (plan == nullptr) break;
    steps_.push_back(runner_->Launch(*plan));
  }
  // Nothing in flight can make room, so nothing would ever run.
  MOEBIUS_CHECK(!steps_.empty() || is_dead_ || scheduler_.num_waiting() == 0);
}

void Engine::FinishOldestStep() {
  const Clock::time_point begin = Clock::now();
  const Result<StepOutput> output = runner_->Wait(steps_.front(), config_.step_timeout);
  wait_time_.Add(SecondsSince(begin));
  if (!output) {
    HandleFault(output.error());
    return;
  }
  steps_.pop_front();
  num_failures_in_a_row_ = 0;
  device_time_.Add(output->device_seconds);
  const Clock::time_point done = Clock::now();
  scheduler_.Commit(*output);
  plan_time_.Add(plan_seconds_ + SecondsSince(done));
  plan_seconds_ = 0;
}

// The oldest step failed. Those behind it were not run: their requests are planned anew.
void Engine::HandleFault(const Error& error) {
  LogError("a step failed: {}", error.message());
  if (error.code() == ErrorCode::kDeadline) {
    BecomeUnhealthy(error);
    return;
  }
  steps_.pop_front();
  for (const StepHandle& step : steps_) {
    const Result<StepOutput> output = runner_->Wait(step, config_.step_timeout);
    if (!output && output.error().code() == ErrorCode::kDeadline) {
      BecomeUnhealthy(output.error());
      return;
    }
  }
  for (; !steps_.empty(); steps_.pop_back()) scheduler_.TakeBack();
  // Known before the last request hears of it.
  if (++num_failures_in_a_row_ >= kMaxFailuresInARow) BecomeUnhealthy(error);
  scheduler_.Fail(error);
}

void Engine::BecomeUnhealthy(const Error& error) {
  LogError("the engine takes no more requests: {}", error.message());
  is_dead_ = true;
  {
    const std::lock_guard lock(mutex_);
    fault_ = error;
  }
  scheduler_.EndAll(FinishReason::kError, &error);
}

void Engine::PublishStats() {
  EngineStats stats = scheduler_.Stats();
  stats.plan_time = plan_time_;
  stats.device_time = device_time_;
  stats.wait_time = wait_time_;
  const std::lock_guard lock(mutex_);
  stats_ = stats;
}

}  // namespace moebius::engine
