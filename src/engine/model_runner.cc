#include "engine/model_runner.h"

#include <pthread.h>

#include <algorithm>
#include <future>
#include <utility>

#include "base/check.h"

namespace moebius::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kExpertLoadPeriod = std::chrono::milliseconds(200);
// That peers wait for a plan at most.
constexpr auto kPlanningTime = std::chrono::milliseconds(5);

}  // namespace

ModelRunner::ModelRunner(std::unique_ptr<StepExecutor> executor, std::unique_ptr<StepSync> sync)
    : executor_(std::move(executor)),
      sync_(std::move(sync)),
      counters_(sync_ != nullptr ? &sync_->counters() : &executor_->counters()) {
  const int num_stages = sync_ != nullptr ? sync_->num_stages() : 1;
  steps_.resize(static_cast<size_t>(std::max(num_stages, kMaxStepsInFlight)));
  PublishExpertLoad();
  executor_->set_after_layers([this] { SetNearEnd(); });
  std::promise<Status> bound;
  thread_ = std::thread([this, &bound] {
    pthread_setname_np(pthread_self(), "device");
    Status status = executor_->BindThread("the device thread");
    if (!status && sync_ != nullptr) sync_->Abort();
    bound.set_value(std::move(status));
    DeviceLoop();
  });
  binding_ = bound.get_future().get();
}

ModelRunner::~ModelRunner() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  launched_.notify_all();
  if (sync_ != nullptr) sync_->Ring();
  if (has_later_stages()) DropSteps(*sync_, [this] { return TakeUnwanted(); });
  thread_.join();
}

bool ModelRunner::WantsPlan() const {
  if (has_later_stages()) return true;
  // A step that is done waits to be fetched, behind the plan.
  return num_launched_ == num_begun_ && (is_near_end_ || num_done_ > num_waited_);
}

bool ModelRunner::IsTimeToPlan() const {
  const std::lock_guard lock(mutex_);
  return WantsPlan();
}

Status ModelRunner::WaitUntilTimeToPlan(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  is_plan_due_ = true;
  if (WaitUntil(lock, timeout, [&] { return WantsPlan(); })) return {};
  return MakeError(ErrorCode::kDeadline, "a step is not done after {} ms", timeout.count());
}

void ModelRunner::HasNoPlan() {
  {
    const std::lock_guard lock(mutex_);
    is_plan_due_ = false;
  }
  launched_.notify_one();
}

void ModelRunner::SetNearEnd() {
  {
    const std::lock_guard lock(mutex_);
    is_near_end_ = true;
  }
  done_.notify_one();
}

StepHandle ModelRunner::Launch(const StepPlan& plan) {
  {
    const std::lock_guard lock(mutex_);
    MOEBIUS_CHECK_LT(num_launched_ - num_waited_, static_cast<int64_t>(steps_.size()));
    StepAt(num_launched_).plan = &plan;
    ++num_launched_;
    is_plan_due_ = false;
  }
  launched_.notify_one();
  if (sync_ != nullptr) sync_->Ring();
  return {plan.step_id};
}

Result<StepOutput> ModelRunner::Wait(StepHandle step, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  MOEBIUS_CHECK_LT(num_waited_, num_launched_);
  MOEBIUS_CHECK_EQ(StepAt(num_waited_).plan->step_id, step.step_id);
  if (!WaitUntil(lock, timeout, [&] { return num_done_ > num_waited_; })) {
    return MakeError(ErrorCode::kDeadline, "step {} is not done after {} ms", step.step_id,
                     timeout.count());
  }
  Result<StepOutput> output = std::move(StepAt(num_waited_).output);
  if (output && has_later_stages()) {
    const StepPlan& plan = *StepAt(num_waited_).plan;
    lock.unlock();
    if (Status home = BringHome(*sync_, plan, timeout, &*output); !home) {
      output = tl::unexpected(std::move(home).error());
    }
    lock.lock();
  }
  ++num_waited_;
  if (!output && output.error().code() != ErrorCode::kCancelled) {
    has_fault_ = false;
    num_skipped_ = num_launched_;
  }
  return output;
}

// A slice counts as what it is, however long it took: nothing is late because this process was
// stopped. Nor is a plan that waits for its turn, as long as the peers' steps end.
template <typename Condition>
bool ModelRunner::WaitUntil(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds timeout,
                            const Condition& condition) {
  constexpr std::chrono::milliseconds kSlice{1000};
  std::chrono::milliseconds left = timeout;
  int64_t num_ended = num_ended_;
  while (left.count() > 0) {
    if (done_.wait_for(lock, std::min(left, kSlice), condition)) return true;
    left = std::exchange(num_ended, num_ended_) == num_ended_ ? left - kSlice : timeout;
  }
  return condition();
}

std::optional<bool> ModelRunner::TakeUnwanted() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return begins_none_ || num_done_ > num_waited_; });
  if (num_done_ == num_waited_) return std::nullopt;
  return StepAt(num_waited_++).output.has_value();
}

int64_t ModelRunner::NextStep() const {
  const std::lock_guard lock(mutex_);
  if (sync_ == nullptr) return num_launched_;
  return sync_->NextStep() + num_launched_ - num_begun_;
}

moe::ExpertStats ModelRunner::ExpertLoad() const {
  const std::lock_guard lock(mutex_);
  return expert_load_;
}

void ModelRunner::WaitForStep(std::unique_lock<std::mutex>& lock) {
  const auto is_needed = [&] { return is_stopping_ || num_done_ < num_launched_; };
  if (sync_ == nullptr || is_cut_off_) {
    if (is_load_stale_ && !launched_.wait_for(lock, kExpertLoadPeriod, is_needed)) {
      PublishExpertLoad();
    }
    launched_.wait(lock, is_needed);
    return;
  }
  while (!is_needed() && !sync_->IsWanted()) {
    lock.unlock();
    sync_->WaitForWork(Clock::now() + kExpertLoadPeriod);
    lock.lock();
    if (is_load_stale_) PublishExpertLoad();
  }
  if (is_needed()) return;
  // A step without rows here would be one step more for the requests of the plan that is due.
  launched_.wait_for(lock, kPlanningTime, [&] { return is_needed() || !is_plan_due_; });
  is_plan_due_ = false;
}

bool ModelRunner::RunShared(const StepPlan* plan, bool wants_end, Result<StepOutput>* output) {
  Result<SharedStep> shared = [&] {
    const TraceSpan span(&executor_->trace(), "agree");
    return sync_->Begin(plan, wants_end);
  }();
  if (!shared) {
    *output = tl::unexpected(std::move(shared).error());
    is_cut_off_ = true;  // every step to come says so
    return true;
  }
  if (shared->is_last) return false;
  if (!shared->has_rows) return true;
  *output = executor_->Run(plan != nullptr ? *plan : idle_plan_, &*shared, sync_.get());
  return true;
}

void ModelRunner::DeviceLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    WaitForStep(lock);
    const bool wants_end = is_stopping_;
    if (wants_end && !std::exchange(begins_none_, true)) done_.notify_one();
    if (wants_end && (sync_ == nullptr || is_cut_off_)) return;
    const StepPlan* plan = nullptr;
    if (!wants_end && num_done_ < num_launched_) plan = StepAt(num_done_).plan;
    if (plan != nullptr && sync_ != nullptr && !is_cut_off_ && !sync_->MayBegin(*plan)) {
      plan = nullptr;  // not this time
    }
    const bool has_plan = plan != nullptr;
    if (has_plan) {
      num_begun_ = num_done_ + 1;
      is_plan_due_ = !has_later_stages();
    }
    Result<StepOutput> output =
        MakeError(ErrorCode::kCancelled, "a step was not run: a step before it failed");
    const bool runs = !has_plan || (!has_fault_ && num_done_ >= num_skipped_);
    bool goes_on = true;
    if (runs) {
      is_near_end_ = false;
      lock.unlock();
      if (sync_ == nullptr) {
        output = executor_->Run(*plan);
      } else {
        goes_on = RunShared(plan, wants_end, &output);
      }
      lock.lock();
      is_near_end_ = true;
      ++num_ended_;
    }
    if (!goes_on) return;
    if (has_plan) {
      if (runs) has_fault_ = !output;
      StepAt(num_done_).output = std::move(output);
      ++num_done_;
    }
    done_.notify_one();
    is_load_stale_ = true;
    if (Clock::now() - last_published_ >= kExpertLoadPeriod) PublishExpertLoad();
  }
}

// A copy may cost more than a small step, so it is made now and then, and when there is time.
void ModelRunner::PublishExpertLoad() {
  last_published_ = Clock::now();
  expert_load_ = executor_->expert_stats();
  if (sync_ != nullptr) sync_->Publish(expert_load_);
  is_load_stale_ = false;
}

}  // namespace moebius::engine
