// How experts' weights go from rank to rank: in pieces, through the mailbox of the rank that wants
// them, each with a checksum. Ranks may be processes, whose weights nobody else sees; on GPUs a
// mailbox's chunk is device memory, into which the source copies. A mover asks and serves on one
// thread: while it waits for an answer, it answers its peers.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
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
};

// Where pieces arrive if not in the board's chunks, and how they are summed up there.
struct MailMemory {
  std::vector<std::span<std::byte>> chunks = {};  // by rank, of one size; empty: the board's
  std::function<uint64_t(std::span<const std::byte>)> checksum = {};
};

struct MailOptions {
  int rank = 0;  // this one
  comm::AbortWord* abort = nullptr;
  std::chrono::nanoseconds answer_deadline = std::chrono::seconds(2);
  int64_t bytes_per_second = 0;  // that this rank fetches, at most; 0: as fast as it goes
  BalanceHooks hooks = {};
  MailMemory memory = {};
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

  // Answers who asks this rank, until `is_over` (whose other end rings this rank's bell), until the
  // deadline, or until this is ending.
  void ServeUntil(const std::function<bool()>& is_over, comm::Clock::time_point deadline);

  // A peer's expert into a staging slot. is_over: nobody wants it any more. kDeadline: the peer
  // does not answer; kCorrupt: what came was wrong, twice; kUnavailable: it has no such bytes;
  // kCancelled: is_over, or this rank is ending.
  Status Fetch(const PeerSlot& from, int staging, const std::function<bool()>& is_over);

  // Where pieces for a rank arrive.
  std::span<std::byte> ChunkOf(int rank) const {
    const auto& chunks = options_.memory.chunks;
    return chunks.empty() ? board_.ChunkOf(rank) : chunks[static_cast<size_t>(rank)];
  }

  // The thread's loops end. Any thread.
  void Stop();
  bool is_ending() const;

 private:
  using IsOver = std::function<bool()>;

  void Serve();
  void AnswerTo(int owner, uint64_t asked);
  uint64_t ChecksumOf(std::span<const std::byte> bytes) const;
  // Checksums of what then lies in this rank's chunk; FetchPiece's is right, Ask's may not be.
  Result<uint64_t> Ask(const PeerSlot& from, size_t offset, size_t length, const IsOver& is_over);
  Result<uint64_t> FetchPiece(const PeerSlot& from, size_t offset, size_t length,
                              const IsOver& is_over);
  void Pace(size_t bytes, const IsOver& is_over);

  const BalanceBoard board_;
  const MailOptions options_;
  moe::ExpertStore* const store_;
  std::atomic<bool> is_stopping_{false};
  uint32_t sequence_ = 0;
  comm::Clock::time_point next_fetch_;  // not before, so as to keep to bytes_per_second
  std::vector<uint64_t> lost_;          // by owner: the request that a hook said is lost
};

}  // namespace moebius::rank
