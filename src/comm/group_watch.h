// Who a group of ranks is, and how one of its members waits for another: within the step's bound,
// and with a name for whoever is late. What carries rows (a communicator, an exchange) has one
// each. Used by the device thread of a rank.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "comm/signal.h"

namespace moebius::comm {

// For whom a rank waits just now, in memory that all ranks share: its number + 1, 0 for nobody.
// Each rank writes its own.
struct alignas(64) Awaited {
  std::atomic<int32_t> rank{0};
};

// Who a group is, for errors and aborts.
struct GroupInfo {
  std::string name = "group";          // "TP group of DP rank 1"
  int rank = 0;                        // of this member
  std::vector<int> world_ranks = {0};  // of all members
  AbortWord* abort = nullptr;          // of the deployment; null: nobody else is told
  int num_spins = 0;                   // 0 where there are more ranks than cores
  // Grows by the nanoseconds that this member waits for others; null: nobody wants to know. Its
  // only writer is the thread that waits.
  std::atomic<int64_t>* waited_ns = nullptr;
  // By world rank, of all groups: who is late may only wait for another. Empty: nobody knows.
  std::span<Awaited> awaited = {};

  int size() const { return static_cast<int>(world_ranks.size()); }
};

// The first failure sticks: ask status() before a call, and return at once where it is one.
class GroupWatch {
 public:
  explicit GroupWatch(GroupInfo info);

  const GroupInfo& info() const { return info_; }
  const Status& status() const { return status_; }
  int64_t step() const { return step_; }

  // Waits until the next BeginStep belong to `step` (errors name it) and end by `deadline`.
  void BeginStep(int64_t step, Clock::time_point deadline);
  WaitBound bound() const;

  // WaitFor, for a signal that `member` raises. False: status() says that it was late in `call` (or
  // whom it waits for, in whatever group), or who else failed; the other ranks are told.
  bool Wait(Signal& signal, uint32_t sequence, uint32_t slack, int member, const char* call,
            uint32_t* payload = nullptr);
  // The wait alone: what its end means is the caller's to say.
  WaitEnd WaitOnly(Signal& signal, uint32_t sequence, uint32_t slack, int member,
                   uint32_t* payload);
  // What Wait does with a wait that ended so (not kRaised), for callers that wait themselves and
  // may know better who is to blame.
  void Fail(WaitEnd end, int member, const char* call);

 private:
  int WorldRank(int member) const { return info_.world_ranks[static_cast<size_t>(member)]; }
  void SetAwaited(int rank);
  int LastAwaited(int rank) const;

  const GroupInfo info_;
  int64_t step_ = -1;
  Clock::time_point begin_;  // of the step, as far as its deadline goes
  Clock::time_point deadline_ = Clock::time_point::max();
  Status status_;
};

}  // namespace moebius::comm
