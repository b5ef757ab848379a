#include "rank/lockstep.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace moebius::rank {

using comm::Clock;
using comm::WaitEnd;

struct Lockstep::Record {
  int64_t step;
  int64_t epoch;
  int64_t next_epoch;
  int64_t rows;
  int64_t moe_chunks;
  int64_t bound_ns;
  int64_t wants_stop;
  int64_t may_pad;
};

struct Lockstep::Member {
  comm::Signal rounds[2];
  comm::Signal bell;
  struct alignas(64) Line {
    Record record;
  };
  Line records[2];
};

size_t Lockstep::NumBytes(int num_leaders) {
  return static_cast<size_t>(num_leaders) * sizeof(Member);
}

Lockstep::Lockstep(comm::GroupInfo info, std::span<std::byte> memory)
    : watch_(std::move(info)), memory_(memory) {
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(watch_.info().size()));
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(memory.data()) % alignof(Member), uintptr_t{0});
}

Lockstep::Member& Lockstep::MemberOf(int leader) const {
  return reinterpret_cast<Member*>(memory_.data())[leader];
}

bool Lockstep::HasBegun(int leader) const {
  const comm::Signal& signal = MemberOf(leader).rounds[round_ % 2];
  return comm::SequenceOf(signal.word.load()) == round_;
}

Status Lockstep::Compare(const Record& mine, const Record& other, int leader) const {
  const comm::GroupInfo& info = watch_.info();
  const auto differ = [&](const char* what, int64_t a, int64_t b) {
    return MakeError(ErrorCode::kInternal, "lockstep of {}: rank {} is at {} {}, rank {} at {} {}",
                     info.name, info.world_ranks[static_cast<size_t>(info.rank)], what, a,
                     info.world_ranks[static_cast<size_t>(leader)], what, b);
  };
  if (mine.step != other.step) return differ("step", mine.step, other.step);
  if (mine.epoch != other.epoch) return differ("placement epoch", mine.epoch, other.epoch);
  return {};
}

Result<Agreement> Lockstep::Agree(const Offer& offer, Clock::time_point deadline) {
  if (!status_) return tl::unexpected(status_.error());
  Result<Agreement> agreement = TryAgree(offer, deadline);
  if (!agreement) status_ = tl::unexpected(agreement.error());
  return agreement;
}

Result<Agreement> Lockstep::TryAgree(const Offer& offer, Clock::time_point deadline) {
  const comm::GroupInfo& info = watch_.info();
  Member& self = MemberOf(info.rank);
  const Record mine{.step = offer.step,
                    .epoch = offer.epoch,
                    .next_epoch = offer.next_epoch,
                    .rows = offer.rows,
                    .moe_chunks = offer.moe_chunks,
                    .bound_ns = offer.bound_ns,
                    .wants_stop = offer.wants_stop ? 1 : 0,
                    .may_pad = offer.may_pad ? 1 : 0};
  self.records[round_ % 2].record = mine;
  comm::Raise(self.rounds[round_ % 2], round_);
  // Who is behind may sleep, or be about to: it looks at our signal after it has looked at its
  // bell, so it sees one of the two.
  for (int leader = 0; leader < info.size(); ++leader) {
    if (!HasBegun(leader)) comm::Ring(MemberOf(leader).bell);
  }
  watch_.BeginStep(offer.step, deadline);
  for (int i = 1; i < info.size(); ++i) {
    const int leader = (info.rank + i) % info.size();
    comm::Signal& signal = MemberOf(leader).rounds[round_ % 2];
    if (!watch_.Wait(signal, round_, 0, leader, "lockstep")) {
      return tl::unexpected(watch_.status().error());
    }
  }
  Agreement agreement;
  agreement.stop = true;
  agreement.may_pad = true;
  agreement.epoch = offer.next_epoch;
  for (int leader = 0; leader < info.size(); ++leader) {
    const Record& record = MemberOf(leader).records[round_ % 2].record;
    if (Status same = Compare(mine, record, leader); !same) {
      // Each that differs finds another; whoever is wrong, none of them goes on.
      if (info.abort != nullptr) {
        info.abort->Set(info.world_ranks[static_cast<size_t>(info.rank)], -1);
      }
      return tl::unexpected(std::move(same).error());
    }
    agreement.rows.push_back(record.rows);
    agreement.total_rows += record.rows;
    agreement.moe_chunks = std::max(agreement.moe_chunks, record.moe_chunks);
    agreement.bound_ns = std::max(agreement.bound_ns, record.bound_ns);
    agreement.epoch = std::min(agreement.epoch, record.next_epoch);
    agreement.stop = agreement.stop && record.wants_stop != 0;
    agreement.may_pad = agreement.may_pad && record.may_pad != 0;
  }
  ++round_;
  return agreement;
}

void Lockstep::RingSelf() {
  num_own_rings_.fetch_add(1);
  comm::Ring(MemberOf(watch_.info().rank).bell);
}

bool Lockstep::IsStepBegun() const {
  const comm::GroupInfo& info = watch_.info();
  if (!status_ || (info.abort != nullptr && info.abort->is_set())) return true;
  for (int leader = 0; leader < info.size(); ++leader) {
    if (HasBegun(leader)) return true;
  }
  return false;
}

bool Lockstep::WaitForWork(Clock::time_point deadline) {
  comm::Signal& bell = MemberOf(watch_.info().rank).bell;
  while (true) {
    const uint32_t seen = comm::SequenceOf(bell.word.load());  // before the looks below
    const uint32_t num_rings = num_own_rings_.load();
    const bool has_rung = num_rings != num_rings_taken_;
    num_rings_taken_ = num_rings;
    if (has_rung || IsStepBegun()) return true;
    const comm::WaitBound bound{.deadline = deadline, .abort = watch_.info().abort};
    if (comm::WaitForChange(bell, seen, bound) == WaitEnd::kDeadline) return false;
  }
}

}  // namespace moebius::rank
