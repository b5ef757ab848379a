#include "engine/cuda/shared_runner.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "platform/cuda/device.h"

namespace moebius::engine {
namespace {

// Peers that have begun a step wait so long for one of this rank's, if it has just had one: its
// engine is about to plan the next.
constexpr auto kDevicePlanningTime = std::chrono::microseconds(300);
constexpr auto kIdleTime = std::chrono::milliseconds(200);
constexpr auto kLoadCopyPeriod = std::chrono::milliseconds(200);
constexpr auto kStepTime = std::chrono::milliseconds(1);  // a step that is done by its event

}  // namespace

SharedRunner::SharedRunner(std::unique_ptr<CudaRunner> runner, int device,
                           std::unique_ptr<StepSync> sync)
    : runner_(std::move(runner)), device_(device), sync_(std::move(sync)) {
  steps_.resize(static_cast<size_t>(std::max(sync_->num_stages(), kMaxStepsInFlight)));
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "device");
    DeviceLoop();
  });
}

SharedRunner::~SharedRunner() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  sync_->Ring();
  if (has_later_stages()) DropSteps(*sync_, [this] { return TakeUnwanted(); });
  {
    const std::lock_guard lock(mutex_);
    is_home_ = true;
  }
  sync_->Ring();
  thread_.join();
}

std::optional<bool> SharedRunner::TakeUnwanted() {
  std::unique_lock lock(mutex_);
  done_.wait(lock,
             [&] { return num_done_ > num_waited_ || (begins_none_ && num_done_ == num_begun_); });
  if (num_done_ == num_waited_) return std::nullopt;
  return StepAt(num_waited_++).output.has_value();
}

StepHandle SharedRunner::Launch(const StepPlan& plan) {
  {
    const std::lock_guard lock(mutex_);
    MOEBIUS_CHECK_LT(num_launched_ - num_waited_, static_cast<int64_t>(steps_.size()));
    StepAt(num_launched_).plan = &plan;
    ++num_launched_;
  }
  sync_->Ring();
  return {plan.step_id};
}

Result<StepOutput> SharedRunner::Wait(StepHandle step, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  MOEBIUS_CHECK_LT(num_waited_, num_launched_);
  MOEBIUS_CHECK_EQ(StepAt(num_waited_).plan->step_id, step.step_id);
  const auto is_done = [&] { return num_done_ > num_waited_; };
  // A slice counts as what it is, however long this process was stopped in it.
  constexpr std::chrono::milliseconds kSlice{1000};
  for (std::chrono::milliseconds left = timeout; left.count() > 0 && !is_done(); left -= kSlice) {
    done_.wait_for(lock, std::min(left, kSlice), is_done);
  }
  if (!is_done()) {
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

SharedRunner::Wish SharedRunner::NextWish() {
  const std::lock_guard lock(mutex_);
  Wish wish;
  wish.wants_end = is_stopping_ && is_home_;
  if (is_stopping_ && !std::exchange(begins_none_, true)) done_.notify_one();
  if (is_stopping_ || num_begun_ == num_launched_) return wish;
  wish.plan = StepAt(num_begun_).plan;
  wish.cancelled = has_fault_ || num_begun_ < num_skipped_;
  return wish;
}

// Whether to join a step of the peers without rows: not while this rank's engine may plan one.
bool SharedRunner::IsForPeers() const {
  return sync_->IsWanted() && Clock::now() - last_own_ > kDevicePlanningTime &&
         std::ranges::all_of(flying_, [&](const StepPlan* plan) { return plan == &idle_plan_; });
}

void SharedRunner::Publish(Result<StepOutput> output) {
  {
    const std::lock_guard lock(mutex_);
    if (!output && output.error().code() != ErrorCode::kCancelled) has_fault_ = true;
    StepAt(num_done_).output = std::move(output);
    ++num_done_;
  }
  done_.notify_one();
  last_own_ = Clock::now();
}

// The copy waits for no step and takes less than a short one, but is not made for each.
void SharedRunner::PublishExpertLoad() {
  if (!is_load_stale_ || Clock::now() - load_published_ < kLoadCopyPeriod) return;
  sync_->Publish(runner_->ExpertLoad());
  is_load_stale_ = false;
  load_published_ = Clock::now();
}

void SharedRunner::Fail(const Error& error) {
  if (!fault_) return;
  fault_ = tl::unexpected(error);
  sync_->Abort();
}

bool SharedRunner::Begin(const StepPlan* plan, bool wants_end) {
  const Result<SharedStep> shared = sync_->Begin(plan, wants_end);
  if (!shared) {
    Fail(shared.error());
    if (plan != nullptr) {
      ++num_begun_;
      flying_.push_back(nullptr);
    }
    return true;
  }
  if (shared->is_last) return false;
  if (plan != nullptr) ++num_begun_;
  if (!shared->has_rows) return true;
  const StepPlan* runs = plan != nullptr ? plan : &idle_plan_;
  runner_->Launch(*runs, &*shared);
  flying_.push_back(runs);
  return true;
}

void SharedRunner::FinishNext() {
  const StepPlan* plan = flying_.front();
  flying_.pop_front();
  Result<StepOutput> output = MakeError(ErrorCode::kCancelled, "a step was not run");
  if (plan != nullptr) {
    output = runner_->Wait({plan->step_id}, kStepTime);
    is_load_stale_ = true;
    if (output) {
      if (const Status ended = sync_->End(*plan, &*output); !ended) {
        output = tl::unexpected(ended.error());
      }
    }
    if (!output && output.error().code() != ErrorCode::kCancelled) Fail(output.error());
    if (plan == &idle_plan_) return;
  }
  if (!output && !fault_) {
    // The first one says what it was; those that were planned before it was known do not.
    const std::lock_guard lock(mutex_);
    if (!has_fault_ && num_done_ >= num_skipped_) output = tl::unexpected(fault_.error());
  }
  Publish(std::move(output));
}

// A core is not burnt on long steps, and short ones are not missed.
void SharedRunner::Rest() {
  if (flying_.empty()) {
    const bool soon = Clock::now() - last_own_ < 2 * kDevicePlanningTime;
    sync_->WaitForWork(Clock::now() +
                       (soon ? Clock::duration(kDevicePlanningTime) : Clock::duration(kIdleTime)));
    return;
  }
  if (++num_rests_ % 64 == 0) {
    if (const Status status = runner_->PeersStatus(); !status) Fail(status.error());
  }
  std::this_thread::sleep_for(std::chrono::microseconds(10));
}

void SharedRunner::DeviceLoop() {
  if (const auto info = platform::cuda::SelectDevice(device_); !info) Fail(info.error());
  while (true) {
    while (!flying_.empty() && (flying_.front() == nullptr || runner_->IsNextDone())) FinishNext();
    PublishExpertLoad();
    const Wish wish = NextWish();
    if (!fault_) {
      if (wish.plan != nullptr) {
        ++num_begun_;
        flying_.push_back(nullptr);
      } else if (flying_.empty()) {
        if (wish.wants_end) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      // What still runs ends by the abort word.
      if (!flying_.empty() && flying_.front() != nullptr) Rest();
      continue;
    }
    if (wish.cancelled) {
      ++num_begun_;
      flying_.push_back(nullptr);
      continue;
    }
    const bool ends = wish.wants_end && flying_.empty();
    const bool has_room = flying_.size() < static_cast<size_t>(kMaxStepsInFlight);
    if (has_room && (wish.plan != nullptr || ends || IsForPeers())) {
      // A plan whose turn has not come waits, and the peers' steps go on without rows of this rank.
      const bool may_begin = wish.plan != nullptr && sync_->MayBegin(*wish.plan);
      if (!Begin(may_begin ? wish.plan : nullptr, ends)) return;
      num_rests_ = 0;
      continue;
    }
    Rest();
  }
}

namespace {

class Follower final : public DeviceFollower {
 public:
  Follower(std::unique_ptr<CudaRunner> runner, const DeviceRank& rank)
      : runner_(std::move(runner)), ended_(rank.ended) {}

  Status Run(const StepPlan& plan, const SharedStep& shared) override {
    if (num_launched_ - num_waited_ == kMaxStepsInFlight) MOEBIUS_TRY(WaitForNext());
    // Read again when it is waited for; what its samples point to is read now alone.
    StepPlan& kept = plans_[static_cast<size_t>(num_launched_ % kMaxStepsInFlight)];
    kept = plan;
    runner_->Launch(kept, &shared);
    ++num_launched_;
    return {};
  }

  Result<bool> Settle() override {
    while (num_waited_ < num_launched_ && runner_->IsNextDone()) MOEBIUS_TRY(EndNext());
    if (num_waited_ == num_launched_) return false;
    if (++num_looks_ % 64 == 0) MOEBIUS_TRY(runner_->PeersStatus());
    return true;
  }

  Status Finish() override {
    while (num_waited_ < num_launched_) MOEBIUS_TRY(WaitForNext());
    return {};
  }
  moe::ExpertStats ExpertLoad() const override { return runner_->ExpertLoad(); }

 private:
  Status WaitForNext() {
    for (int i = 0; !runner_->IsNextDone(); ++i) {
      if (i % 64 == 63) MOEBIUS_TRY(runner_->PeersStatus());
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    }
    return EndNext();
  }

  // One that is done.
  Status EndNext() {
    const StepPlan& plan = plans_[static_cast<size_t>(num_waited_ % kMaxStepsInFlight)];
    ++num_waited_;
    MOEBIUS_ASSIGN(StepOutput output, runner_->Wait({plan.step_id}, kStepTime));
    return ended_(plan, &output);
  }

  std::unique_ptr<CudaRunner> runner_;
  const std::function<Status(const StepPlan&, StepOutput*)> ended_;
  std::array<StepPlan, kMaxStepsInFlight> plans_;
  int64_t num_launched_ = 0;
  int64_t num_waited_ = 0;
  int64_t num_looks_ = 0;
};

}  // namespace

Result<std::unique_ptr<StepRunner>> MakeSharedDeviceRunner(
    std::unique_ptr<model::Model> model, std::unique_ptr<platform::ThreadPool> pool,
    const ModelRunnerOptions& options, const DeviceRank& rank, std::unique_ptr<StepSync> sync) {
  const int device = rank.device;
  auto runner = std::make_unique<CudaRunner>(std::move(model), std::move(pool), options, rank);
  MOEBIUS_TRY(runner->Allocate());
  return std::make_unique<SharedRunner>(std::move(runner), device, std::move(sync));
}

Result<std::unique_ptr<DeviceFollower>> MakeDeviceFollower(
    std::unique_ptr<model::Model> model, std::unique_ptr<platform::ThreadPool> pool,
    const ModelRunnerOptions& options, const DeviceRank& rank) {
  auto runner = std::make_unique<CudaRunner>(std::move(model), std::move(pool), options, rank);
  MOEBIUS_TRY(runner->Allocate());
  return std::make_unique<Follower>(std::move(runner), rank);
}

}  // namespace moebius::engine
