// How experts' weights go from rank to rank: in pieces, through the mailbox of the rank that wants
// them, each with a checksum. Ranks may be processes, whose weights nobody else sees. A mover asks
// and serves on one thread: while it waits for an answer, it answers its peers.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "comm/signal.h"
#include "moe/migrate/expert_store.h"
#include "rank/balance_board.h"

namespace moebius::rank {

// For tests of what goes wrong; called by movers' threads.
struct BalanceHooks {
  // At a source, before it answers; it may sleep (a slow peer). False: the request is lost.
  std::function<bool(int source, int owner)> asked = {};
  // At a source, with the bytes of an answer whose checksum is known.
  std::function<void(int source, int owner, std::span<std::byte> chunk)> answered = {};
  // What a rank has read of a plan, before it looks whether the plan is one.
  std::function<void(int rank, BalancePlan& plan)> plan_read = {};
};

struct MailOptions {
  int rank = 0;  // this one
  comm::AbortWord* abort = nullptr;
  std::chrono::nanoseconds answer_deadline = std::chrono::seconds(2);
  int64_t bytes_per_second = 0;  // that this rank fetches, at most; 0: as fast as it goes
  BalanceHooks hooks = {};
};

// An expert's weights in a peer's slot.
struct PeerSlot {
  int rank = 0;
  int layer = 0;
  int local_slot = 0;
};

class ExpertMail {
 public:
  ExpertMail(const BalanceBoard& board, MailOptions options, moe::ExpertStore* store);

  // Answers who asks this rank while it waits until `is_over`, or until the deadline: then false.
  // The thread that has the other end of `is_over` rings this rank's bell. True also when the
  // deployment has failed or this rank stops: ask is_ending().
  bool ServeUntil(const std::function<bool()>& is_over, comm::Clock::time_point deadline);

  // A peer's expert into a staging slot. is_over: nobody wants it any more. kDeadline: the peer
  // does not answer; kCorrupt: what came was wrong, twice; kUnavailable: it has no such bytes;
  // kCancelled: is_over, or this rank is ending.
  Status Fetch(const PeerSlot& from, int staging, const std::function<bool()>& is_over);

  // The thread's loops end. Any thread.
  void Stop();
  bool is_ending() const;

 private:
  struct Answer;

  void Serve();
  void AnswerTo(int owner, uint64_t word);
  Result<Answer> Ask(const PeerSlot& from, size_t offset, size_t length,
                     const std::function<bool()>& is_over);
  bool TakeBack(uint64_t asked);
  Status Pace(size_t bytes, const std::function<bool()>& is_over);

  const BalanceBoard board_;
  const MailOptions options_;
  moe::ExpertStore* const store_;
  std::atomic<bool> is_stopping_{false};
  uint32_t sequence_ = 0;
  comm::Clock::time_point next_fetch_;  // not before, so as to keep to bytes_per_second
  std::vector<uint64_t> lost_;          // by owner: the request that a hook said is lost
};

}  // namespace moebius::rank
