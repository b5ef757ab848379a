// How the ranks that share experts agree on a step: the leader of each data-parallel group brings
// one record of fixed size, and all go on with the same numbers or none does. Leaders without work
// sleep, and no step is begun while all of them do.
//
// In shared memory each leader has two records, used in turn: who sees all signals of round n + 1
// knows that everybody has read round n. A bell wakes a leader that sleeps; it only makes it look
// again (at its own rings, at the others' signals), so a ring too many costs nothing but a look.
//
// One thread of a rank calls everything but RingSelf.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "comm/group_watch.h"
#include "comm/signal.h"

namespace moebius::rank {

struct Offer {
  int64_t step = 0;
  int64_t epoch = 0;       // of the placement that this rank's last step used
  int64_t next_epoch = 0;  // the newest that its next one may use
  int64_t rows = 0;
  int64_t moe_chunks = 0;   // that this rank's rows want
  int64_t bound_ns = 0;     // that this rank would give the step
  bool wants_stop = false;  // once said, said in every later step
  bool may_pad = false;     // its rows, to those of the fullest rank
};

struct Agreement {
  std::vector<int64_t> rows;  // by leader
  int64_t total_rows = 0;     // 0: nobody brought any, there is nothing to compute
  int64_t moe_chunks = 0;     // the largest number offered
  int64_t bound_ns = 0;       // likewise
  int64_t epoch = 0;          // the newest that all may use: this step's
  bool stop = false;          // all want to
  bool may_pad = false;       // all may
};

class Lockstep {
 public:
  // Of the memory of all leaders, which begins as zeros.
  static size_t NumBytes(int num_leaders);

  // info: the leaders, and which of them this is. memory: NumBytes(leaders) bytes at a multiple of
  // 64, the same ones for all; outlives this.
  Lockstep(comm::GroupInfo info, std::span<std::byte> memory);

  // Brings this leader's record and waits for all others'. kDeadline names a late rank and sets the
  // group's abort word; kUnavailable: the deployment has failed; kInternal: two leaders mean
  // another step or epoch, which the message says rank by rank. After an error every later call
  // gives it again.
  Result<Agreement> Agree(const Offer& offer, comm::Clock::time_point deadline);

  // Wakes WaitForWork: this rank has a plan, or wants to stop. Never lost, if rung after what it
  // tells of is there to be seen. Any thread of this process.
  void RingSelf();

  // Sleeps until RingSelf (since this last returned true), until a step is begun, or until the
  // deadline: then false.
  bool WaitForWork(comm::Clock::time_point deadline);

  // Another leader has begun the next step and waits in Agree; or the deployment has failed, as
  // Agree will say.
  bool IsStepBegun() const;

 private:
  struct Record;
  struct Member;  // in shared memory

  Member& MemberOf(int leader) const;
  bool HasBegun(int leader) const;  // the round to come
  Status Compare(const Record& mine, const Record& other, int leader) const;
  Result<Agreement> TryAgree(const Offer& offer, comm::Clock::time_point deadline);

  comm::GroupWatch watch_;
  const std::span<std::byte> memory_;
  uint32_t round_ = 1;  // the one to come; memory begins as if round 0 were over
  Status status_;
  std::atomic<uint32_t> num_own_rings_{0};
  uint32_t num_rings_taken_ = 0;
};

}  // namespace moebius::rank
