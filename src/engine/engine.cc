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
    : config_(config),
      runner_(runner),
      scheduler_(config.scheduler),
      trace_(config.trace, TraceThread::kEngine) {
  PublishStats();
}

void Engine::Run() {
  while (ApplyCommands()) {
    const bool has_launched = LaunchSteps();
    PublishStats();
    if (!has_launched) {
      AwaitTimeToPlan();
    } else if (steps_.empty() || is_dead_) {
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
    if (!std::exchange(has_work_, true)) last_progress_ = Clock::now();
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
  stats.has_work = has_work_;
  stats.seconds_without_progress = has_work_ ? SecondsSince(last_progress_) : 0;
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

// Ranks that share steps compute prompts in the same ones, so the others stay short on all of them.
// Where steps of others come between, the one foreseen may always be another: then the plan waits
// for its step (StepSync::MayBegin).
bool Engine::MayPrefill() {
  if (config_.prefill_interval <= 1) return true;
  const bool may = runner_->NextStep() % config_.prefill_interval == 0 ||
                   num_plans_without_prefill_ >= config_.prefill_interval;
  num_plans_without_prefill_ = may ? 0 : num_plans_without_prefill_ + 1;
  return may;
}

bool Engine::LaunchSteps() {
  const bool runs_ahead = config_.async_scheduling || config_.scheduler.num_micro_batches > 1;
  const int depth = runs_ahead ? scheduler_.max_steps_in_flight() : 1;
  while (!is_dead_ && scheduler_.num_steps_in_flight() < depth) {
    if (!runner_->IsTimeToPlan()) return false;
    const Clock::time_point begin = Clock::now();
    const StepPlan* plan = scheduler_.Plan(MayPrefill());
    plan_seconds_ += SecondsSince(begin);
    if (plan == nullptr) {
      if (steps_.empty()) runner_->HasNoPlan();
      break;
    }
    trace_.Add("plan", begin, plan->step_id, plan->num_rows());
    steps_.push_back(runner_->Launch(*plan));
  }
  // Nothing in flight can make room, so nothing would ever run.
  MOEBIUS_CHECK(!steps_.empty() || is_dead_ || scheduler_.num_waiting() == 0);
  return true;
}

void Engine::AwaitTimeToPlan() {
  const Clock::time_point begin = Clock::now();
  if (Status status = runner_->WaitUntilTimeToPlan(config_.step_timeout); !status) {
    BecomeUnhealthy(status.error());
  }
  if (steps_.empty()) return;  // a peer's step is none of ours
  wait_seconds_ += SecondsSince(begin);
  trace_.Add("wait", begin, steps_.front().step_id);
}

void Engine::FinishOldestStep() {
  const Clock::time_point begin = Clock::now();
  const Result<StepOutput> output = runner_->Wait(steps_.front(), config_.step_timeout);
  const double wait = std::exchange(wait_seconds_, 0) + SecondsSince(begin);
  trace_.Add("wait", begin, steps_.front().step_id);
  wait_time_.Add(wait);
  has_progressed_ = true;
  if (!output) {
    HandleFault(output.error());
    return;
  }
  steps_.pop_front();
  num_failures_in_a_row_ = 0;
  device_time_.Add(output->device_seconds);
  const Clock::time_point done = Clock::now();
  const StepRows rows = scheduler_.Commit(*output);
  const double schedule = std::exchange(plan_seconds_, 0) + SecondsSince(done);
  plan_time_.Add(schedule);
  trace_.Add("commit", done, output->step_id);
  trace_.Flush();
  PublishStats();
  if (config_.on_step) TellObserver(*output, rows, schedule, wait);
}

void Engine::TellObserver(const StepOutput& output, const StepRows& rows, double schedule,
                          double wait) const {
  StepRecord record;
  record.step_id = output.step_id;
  record.unix_time =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  record.num_prefill_tokens = rows.prefill;
  record.num_decode_tokens = rows.decode;
  record.num_requests = rows.requests;
  record.num_running = stats_.num_running;
  record.num_waiting = stats_.num_waiting;
  record.num_kv_blocks = stats_.num_kv_blocks;
  record.num_used_kv_blocks = stats_.num_used_kv_blocks;
  record.num_preemptions = stats_.num_preemptions;
  record.schedule = schedule;
  record.wait = wait;
  record.device = output.device_seconds;
  record.parts = output.parts;
  record.dispatch_bytes = output.dispatch_bytes;
  record.combine_bytes = output.combine_bytes;
  record.exchange_mode = static_cast<int64_t>(output.exchange_mode);
  record.dp_rows = output.dp_rows;
  record.epoch = output.epoch;
  record.expert_counts = output.expert_counts;
  record.num_experts = output.num_experts;
  record.experts_per_token = output.experts_per_token;
  config_.on_step(record);
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

// Allocates nothing: what stats_ holds has its size from the first call on.
void Engine::PublishStats() {
  const std::lock_guard lock(mutex_);
  scheduler_.ReadStats(&stats_);
  stats_.plan_time = plan_time_;
  stats_.device_time = device_time_;
  stats_.wait_time = wait_time_;
  has_work_ = stats_.has_work || !submissions_.empty();
  if (std::exchange(has_progressed_, false)) last_progress_ = Clock::now();
}

}  // namespace moebius::engine
