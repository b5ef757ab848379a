#include "rank/leader_sync.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "comm/lost_time.h"
#include "engine/output_codec.h"
#include "engine/step_inputs.h"
#include "rank/step_message.h"

namespace moebius::rank {
namespace {

// The stages' own deadlines, which name who is late, come before that of what they drew.
constexpr auto kGrace = std::chrono::milliseconds(500);

}  // namespace

void LeaderSync::Ring() {
  if (links_->lockstep() != nullptr) {
    links_->lockstep()->RingSelf();
  } else {
    comm::Raise(bell_, ++num_rings_);
  }
}

void LeaderSync::WaitForWork(std::chrono::steady_clock::time_point until) {
  if (links_->lockstep() != nullptr) {
    links_->lockstep()->WaitForWork(until);
    return;
  }
  const comm::WaitBound bound{.deadline = until, .abort = &links_->control().abort()};
  if (comm::WaitForChange(bell_, num_rings_taken_, bound) != comm::WaitEnd::kRaised) return;
  num_rings_taken_ = comm::SequenceOf(bell_.word.load());
}

bool LeaderSync::IsWanted() const {
  if (links_->lockstep() != nullptr) return links_->lockstep()->IsStepBegun();
  return links_->control().abort().is_set();
}

Result<engine::SharedStep> LeaderSync::Agree(const engine::StepPlan* plan, bool wants_end,
                                             comm::Clock::time_point* deadline) {
  const comm::Clock::time_point begin = comm::Clock::now();
  engine::SharedStep shared;
  shared.step = next_step_;
  const int64_t rows = plan != nullptr ? plan->num_rows() : 0;
  // A rank without rows has whatever number is wanted.
  const bool may_pad = pads_decodes_ && (rows == 0 || engine::IsDecode(*plan));
  const int64_t newest = balance_ != nullptr ? static_cast<int64_t>(balance_->Committable()) : 0;
  const std::chrono::nanoseconds bound = [&] {
    const std::lock_guard lock(mutex_);
    return bound_.Of(rows);
  }();
  if (links_->lockstep() == nullptr) {
    const comm::AbortWord& abort = links_->control().abort();
    if (abort.is_set()) {
      return MakeError(ErrorCode::kUnavailable, "rank {} saw a failure of rank {}", abort.seen_by(),
                       abort.culprit());
    }
    shared.is_last = wants_end;
    shared.has_rows = rows > 0;
    shared.epoch = newest;
    *deadline = begin + bound;
    return shared;
  }
  const std::chrono::nanoseconds patience = std::max(bound, std::exchange(last_bound_, bound));
  MOEBIUS_ASSIGN(Agreement agreement, links_->lockstep()->Agree({.step = next_step_,
                                                                 .epoch = epoch_,
                                                                 .next_epoch = newest,
                                                                 .rows = rows,
                                                                 .bound_ns = bound.count(),
                                                                 .wants_stop = wants_end,
                                                                 .may_pad = may_pad},
                                                                begin + patience));
  const comm::Clock::time_point agreed = comm::Clock::now();
  last_bound_ = std::chrono::nanoseconds(agreement.bound_ns);
  *deadline = agreed + last_bound_;
  shared.agree_seconds = std::chrono::duration<double>(agreed - begin).count();
  shared.dp_rows = std::move(agreement.rows);
  shared.num_moe_chunks = agreement.moe_chunks;
  shared.epoch = agreement.epoch;
  shared.pads = agreement.may_pad;
  shared.is_last = agreement.stop;
  shared.has_rows = agreement.total_rows > 0;
  return shared;
}

Result<engine::SharedStep> LeaderSync::Begin(const engine::StepPlan* plan, bool wants_end) {
  comm::Clock::time_point deadline;
  step_to_come_.store(next_step_ + 1, std::memory_order_relaxed);
  MOEBIUS_ASSIGN(engine::SharedStep shared, Agree(plan, wants_end, &deadline));
  const comm::Clock::time_point begin = comm::Clock::now();
  ++next_step_;
  if (!shared.is_last && !shared.has_rows) return shared;
  if (links_->sender() != nullptr) {
    // On GPUs everybody draws, from the same logits: nothing is passed on.
    const bool followers_draw = !draws() || links_->device() != nullptr;
    MOEBIUS_TRY(links_->sender()->Push(EncodeStep(shared, begin, deadline, plan, followers_draw),
                                       deadline));
  }
  links_->BeginStep(shared.step, deadline);
  epoch_ = shared.epoch;
  if (balance_ != nullptr) {
    if (Status flipped = balance_->Flip(static_cast<uint64_t>(epoch_)); !flipped) {
      Abort();
      return tl::unexpected(std::move(flipped).error());
    }
  }
  // Of several stages nobody collects what the others' steps drew.
  if (!shared.is_last && (num_stages() == 1 || plan != nullptr)) {
    const int64_t rows =
        shared.dp_rows.empty() ? plan->num_rows() : std::ranges::max(shared.dp_rows);
    const std::lock_guard lock(mutex_);
    begun_.push_back({comm::Clock::now(), deadline, rows});
  }
  return shared;
}

Status LeaderSync::End(const engine::StepPlan& plan, engine::StepOutput* output) {
  MOEBIUS_TRY(PassOutput(*links_, plan, output));
  links_->control().SetStep(links_->rank().value(), next_step_ - 1);
  if (num_stages() == 1) Learn();
  return {};
}

void LeaderSync::Learn() {
  const std::lock_guard lock(mutex_);
  const comm::Clock::time_point begin = begun_.front().time;
  const auto took = comm::Clock::now() - begin - comm::LostSince(begin);
  bound_.Learn(begun_.front().rows, std::max(took, comm::Clock::duration(0)));
  begun_.pop_front();
}

void LeaderSync::Abort() {
  links_->control().abort().Set(links_->rank().value(), links_->rank().value());
}

Result<engine::StepOutput> LeaderSync::Collect(std::chrono::milliseconds timeout) {
  const comm::Clock::time_point begin = comm::Clock::now();
  comm::Clock::time_point deadline;
  {
    const std::lock_guard lock(mutex_);
    const Begun& step = begun_.front();
    deadline = std::min(begin + timeout, step.deadline + comm::LostSince(step.time) + kGrace);
  }
  Result<std::span<const std::byte>> block = links_->output_receiver()->Pop(deadline);
  const comm::AbortWord& abort = links_->control().abort();
  const int me = links_->rank().value();
  if (!block && block.error().code() == ErrorCode::kDeadline) {
    const std::vector<RankId> stages = layout::PpGroup(links_->shape().parallel, links_->rank());
    const int drawer = stages.back().value();
    links_->control().abort().Set(me, drawer);
    return MakeError(
        ErrorCode::kDeadline, "rank {} has not sent rank {} what a step drew in {} ms", drawer, me,
        std::chrono::duration_cast<std::chrono::milliseconds>(comm::Clock::now() - begin).count());
  }
  MOEBIUS_TRY(block);
  // What came from a rank that has failed may be anything.
  if (abort.is_set()) {
    return MakeError(ErrorCode::kUnavailable,
                     "a step was given up: rank {} saw a failure of rank {}", abort.seen_by(),
                     abort.culprit());
  }
  Learn();
  return engine::DecodeOutput(*block);
}

Status PassOutput(Links& links, const engine::StepPlan& plan, engine::StepOutput* output) {
  MOEBIUS_TRY(links.status());
  if (links.num_stages() > 1) {
    if (links.output_sender() == nullptr || plan.num_rows() == 0) return {};
    return links.output_sender()->Push(engine::EncodeOutput(*output), links.deadline());
  }
  if (links.device() != nullptr) return {};
  // The next step's rows may begin with them.
  if (links.tp() != nullptr && plan.num_samples() > 0) {
    std::vector<TokenId> tokens(static_cast<size_t>(plan.num_samples()));
    if (links.is_leader()) {
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = output->sampled[i].token;
    }
    links.tp()->Broadcast(0, std::as_writable_bytes(std::span(tokens)));
    if (!links.is_leader()) {
      output->sampled.resize(tokens.size());
      for (size_t i = 0; i < tokens.size(); ++i) output->sampled[i].token = tokens[i];
    }
  }
  return links.status();
}

}  // namespace moebius::rank
