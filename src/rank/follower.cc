#include "rank/follower.h"

#include <thread>
#include <utility>

#include "comm/lost_time.h"
#include "rank/leader_sync.h"
#include "rank/step_message.h"

namespace moebius::rank {
namespace {

// How often a rank that has nothing to do looks up.
constexpr auto kPeriod = std::chrono::milliseconds(200);
// While its GPU runs a step of which somebody waits to hear.
constexpr auto kDeviceRest = std::chrono::microseconds(10);

// The little that an executor asks of a follower's side.
class FollowerSync final : public engine::StepSync {
 public:
  explicit FollowerSync(Links* links) : links_(links) {}

  bool draws() const override { return links_->draws(); }
  bool hears_tokens() const override { return links_->hears_tokens(); }
  int num_stages() const override { return links_->num_stages(); }
  void Ring() override {}
  void WaitForWork(std::chrono::steady_clock::time_point /*until*/) override {}
  bool IsWanted() const override { return false; }
  Result<engine::SharedStep> Begin(const engine::StepPlan* /*plan*/, bool /*wants_end*/) override {
    return MakeError(ErrorCode::kInternal, "a follower begins no step");
  }
  int64_t NextStep() const override { return 0; }
  Status End(const engine::StepPlan& plan, engine::StepOutput* output) override {
    return PassOutput(*links_, plan, output);
  }
  Result<engine::StepOutput> Collect(std::chrono::milliseconds /*timeout*/) override {
    return MakeError(ErrorCode::kInternal, "a follower plans nothing");
  }
  void Abort() override {
    links_->control().abort().Set(links_->rank().value(), links_->rank().value());
  }
  void Publish(const moe::ExpertStats& stats) override {
    links_->expert_counts().Publish(links_->rank().value(), stats);
  }
  engine::RankCounters& counters() override {
    return links_->control().Counters(links_->rank().value());
  }
  const std::atomic<int64_t>& waited_ns() const override { return links_->waited_ns(); }

 private:
  Links* links_;
};

Status FlipTo(const StepMessage& message, FollowerSync& sync, BalanceAgent* balance) {
  if (balance == nullptr) return {};
  Status flipped = balance->Flip(static_cast<uint64_t>(message.shared.epoch));
  if (!flipped) sync.Abort();
  return flipped;
}

// run(message): Status. Until the leader's last step; publish() now and then, settle(): Status
// before each wait for a plan. trace: null: none.
template <typename Run, typename Settle, typename Publish>
Status FollowSteps(Links& links, FollowerSync& sync, const engine::PlanLimits& limits,
                   const Run& run, const Settle& settle, const Publish& publish, Trace* trace) {
  comm::Clock::time_point published;
  while (true) {
    MOEBIUS_TRY(settle());
    if (const auto now = comm::Clock::now(); now - published >= kPeriod) {
      publish();
      published = now;
    }
    const auto block = [&] {
      const TraceSpan span(trace, "wait for a plan");
      return links.receiver()->Pop(comm::Clock::now() + kPeriod);
    }();
    if (!block && block.error().code() == ErrorCode::kDeadline) continue;
    if (!block) {
      sync.Abort();
      return tl::unexpected(block.error());
    }
    Result<StepMessage> message = DecodeStep(*block, limits);
    if (!message) {
      sync.Abort();
      return tl::unexpected(std::move(message).error());
    }
    if (message->shared.is_last) return {};
    links.BeginStep(message->shared.step, message->deadline + comm::LostSince(message->begin));
    MOEBIUS_TRY(run(*message));
    links.control().SetStep(links.rank().value(), message->shared.step);
  }
}

}  // namespace

Status Follow(Links& links, engine::StepExecutor& executor, const engine::PlanLimits& limits,
              BalanceAgent* balance) {
  FollowerSync sync(&links);
  const auto run = [&](const StepMessage& message) -> Status {
    MOEBIUS_TRY(FlipTo(message, sync, balance));
    MOEBIUS_TRY(executor.Run(message.plan.plan, &message.shared, &sync));
    return {};
  };
  const auto publish = [&] { sync.Publish(executor.expert_stats()); };
  const auto settle = [] { return Status(); };
  return FollowSteps(links, sync, limits, run, settle, publish, &executor.trace());
}

Status Follow(Links& links, engine::DeviceFollower& follower, const engine::PlanLimits& limits,
              BalanceAgent* balance) {
  FollowerSync sync(&links);
  const auto run = [&](const StepMessage& message) -> Status {
    MOEBIUS_TRY(FlipTo(message, sync, balance));
    return follower.Run(message.plan.plan, message.shared);
  };
  const auto publish = [&] { sync.Publish(follower.ExpertLoad()); };
  // Until there is a plan, or nothing is out.
  const auto settle = [&]() -> Status {
    while (true) {
      MOEBIUS_ASSIGN(const bool is_busy, follower.Settle());
      // Else nobody waits for what it has drawn.
      const bool tells = links.output_sender() != nullptr;
      if (!is_busy || !tells || links.receiver()->HasBlock()) return {};
      std::this_thread::sleep_for(kDeviceRest);
    }
  };
  Status status = FollowSteps(links, sync, limits, run, settle, publish, nullptr);
  if (status) status = follower.Finish();
  if (!status) {
    sync.Abort();
    (void)links.status();  // tells this rank's kernels
  }
  return status;
}

}  // namespace moebius::rank
