#include "comm/group_watch.h"

#include <utility>

namespace moebius::comm {

GroupWatch::GroupWatch(GroupInfo info) : info_(std::move(info)) {}

void GroupWatch::BeginStep(int64_t step, Clock::time_point deadline) {
  step_ = step;
  deadline_ = deadline;
  begin_ = Clock::now();
}

WaitBound GroupWatch::bound() const {
  return {
      .deadline = deadline_, .abort = info_.abort, .num_spins = info_.num_spins, .since = begin_};
}

// A rank that gives up leaves what it said: whoever asks who is to blame asks then.
void GroupWatch::SetAwaited(int rank) {
  if (info_.awaited.empty()) return;
  info_.awaited[static_cast<size_t>(WorldRank(info_.rank))].rank.store(rank + 1,
                                                                       std::memory_order_relaxed);
}

// From `rank` on, whom each waits for: the one that waits for nobody. `rank` itself where they wait
// for each other, or for this one.
int GroupWatch::LastAwaited(int rank) const {
  const auto size = static_cast<int>(info_.awaited.size());
  int last = rank;
  for (int hops = 0; hops < size; ++hops) {
    const int next =
        info_.awaited[static_cast<size_t>(last)].rank.load(std::memory_order_relaxed) - 1;
    if (next < 0 || next >= size) return last;
    if (next == WorldRank(info_.rank)) return rank;
    last = next;
  }
  return rank;
}

WaitEnd GroupWatch::WaitOnly(Signal& signal, uint32_t sequence, uint32_t slack, int member,
                             uint32_t* payload) {
  const uint64_t word = signal.word.load(std::memory_order_acquire);
  const bool is_raised = SequenceOf(word) - sequence <= slack;
  // A signal that is there already costs no look at the clock.
  if (is_raised) {
    SetAwaited(-1);  // a wait that was given up and tried again
    return WaitFor(signal, sequence, slack, bound(), payload);
  }
  SetAwaited(WorldRank(member));
  std::atomic<int64_t>* const waited = info_.waited_ns;
  const Clock::time_point begin = waited != nullptr ? Clock::now() : Clock::time_point();
  const WaitEnd end = WaitFor(signal, sequence, slack, bound(), payload);
  if (end == WaitEnd::kRaised) SetAwaited(-1);
  if (waited == nullptr) return end;
  const std::chrono::nanoseconds time = Clock::now() - begin;
  waited->store(waited->load(std::memory_order_relaxed) + time.count(), std::memory_order_relaxed);
  return end;
}

bool GroupWatch::Wait(Signal& signal, uint32_t sequence, uint32_t slack, int member,
                      const char* call, uint32_t* payload) {
  const WaitEnd end = WaitOnly(signal, sequence, slack, member, payload);
  if (end == WaitEnd::kRaised) return true;
  Fail(end, member, call);
  return false;
}

void GroupWatch::Fail(WaitEnd end, int member, const char* call) {
  const int self = WorldRank(info_.rank);
  const int late = WorldRank(member);
  const int blamed = LastAwaited(late);
  AbortWord* const abort = info_.abort;
  if (end == WaitEnd::kDeadline && (abort == nullptr || abort->Set(self, blamed))) {
    const std::string whom =
        blamed == late ? "it" : fmt::format("rank {}, which waited for it,", late);
    status_ = MakeError(ErrorCode::kDeadline,
                        "rank {} did not come in time: rank {} waited for {} in {} of {}, step {}",
                        blamed, self, whom, call, info_.name, step_);
    return;
  }
  const int culprit = abort->culprit();
  // Negative: no rank, but who watches them.
  const std::string witness =
      abort->seen_by() < 0 ? "there was" : fmt::format("rank {} saw", abort->seen_by());
  status_ =
      MakeError(ErrorCode::kUnavailable, "{} of {}, step {}, was given up: {} a failure{}", call,
                info_.name, step_, witness, culprit < 0 ? "" : fmt::format(" of rank {}", culprit));
}

}  // namespace moebius::comm
