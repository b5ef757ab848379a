// How experts' weights get into staging slots: from another rank in pieces through the mailbox of
// the rank that wants them, each with a checksum, as ranks may be processes, whose weights nobody
// else sees, and GPUs, on which a mailbox's chunk is device memory that the source copies to; from
// this one in pieces, too. What then lies in the staging slot is read again and held against the
// source's checksum of all of it. A mover asks and serves on one thread: while it waits for an
// answer, and between pieces, it answers its peers.
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
  int64_t bytes_per_second = 0;  // that this rank stages, at most; 0: as fast as it goes
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
  // does not answer; kCorrupt: what came was wrong, twice, or what was staged is; kUnavailable: it
  // has no such bytes; kCancelled: is_over, or this rank is ending.
  Status Fetch(const PeerSlot& from, int staging, const std::function<bool()>& is_over);

  // The same, of bytes that this process can read: `source` gives those of an expert of `layer`
  // from an offset on, as many as it has at once. It may use this rank's chunk of the board. Its
  // errors; and kCorrupt, kCancelled as above.
  using Source = std::function<Result<moe::ExpertStore::Stored>(size_t offset)>;
  Status Copy(int layer, const Source& source, int staging, const std::function<bool()>& is_over);

  // The thread's loops end. Any thread.
  void Stop();
  bool is_ending() const;

 private:
  using IsOver = std::function<bool()>;

  void Serve();
  void AnswerTo(int owner, uint64_t asked);
  // Where pieces for a rank arrive.
  std::span<std::byte> ChunkOf(int rank) const {
    const auto& chunks = options_.memory.chunks;
    return chunks.empty() ? board_.ChunkOf(rank) : chunks[static_cast<size_t>(rank)];
  }
  bool sums_pieces() const { return static_cast<bool>(options_.memory.checksum); }
  uint64_t ChecksumOf(std::span<const std::byte> bytes) const;
  // Of an expert that `read` puts piece by piece into a chunk. of_pieces: of the pieces' checksums,
  // as ranks do it that have a checksum of their own for them.
  using Reading = std::function<Status(size_t offset, std::span<std::byte> piece)>;
  Result<uint64_t> ChecksumOfAll(int layer, std::span<std::byte> chunk, bool of_pieces,
                                 const Reading& read) const;
  // The source's checksum of what it put into this rank's chunk; length 0: of the whole expert.
  Result<uint64_t> Ask(const PeerSlot& from, size_t offset, size_t length, const IsOver& is_over);
  // Into the chunk, with the right checksum.
  Status FetchPiece(const PeerSlot& from, size_t offset, size_t length, const IsOver& is_over);
  // Peers are answered, until so many more bytes may be staged. kCancelled as above.
  Status Pace(size_t bytes, const IsOver& is_over);
  Status CheckStaged(int layer, int staging, uint64_t expected, bool from_peer,
                     const IsOver& is_over);

  const BalanceBoard board_;
  const MailOptions options_;
  moe::ExpertStore* const store_;
  std::atomic<bool> is_stopping_{false};
  uint32_t sequence_ = 0;
  comm::Clock::time_point next_fetch_;  // not before, so as to keep to bytes_per_second
  std::vector<uint64_t> lost_;          // by owner: the request that a hook said is lost
};

}  // namespace moebius::rank
