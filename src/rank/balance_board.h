// Where the ranks of a deployment agree on a change of placement while they serve: a part of their
// shared memory with the plan under way, a few words of each rank, and a mailbox for each, through
// which experts' weights travel. A view of memory that it does not own: copy it freely.
//
// A plan's life: the planner (one, at world rank 0) writes it and publishes its number; each rank's
// mover fetches what its slots need and says ready, or why it cannot; the planner says committable,
// or dropped. Each rank flips to a committed plan before a step of that epoch, or lets go of a
// dropped one, and only when all have is the next one written. So nothing here is ever written
// while another may read it, weights that peers copy stay as they are while they do, and a rank
// that never answers stops balancing, not serving.
//
// Numbers of plans are 1, 2, ...; the number of a committed one is the placement's epoch, which
// begins as 0.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "comm/signal.h"
#include "moe/balance/policy.h"
#include "moe/placement.h"
#include "rank/shared_text.h"

namespace moebius::rank {

struct BalanceShape {
  int num_ranks = 1;                       // of the deployment
  int num_layers = 1;                      // MoE layers of the whole model
  int num_places = 1;                      // of a layer, empty ones included
  int max_updates = 1;                     // layers that one plan changes
  size_t chunk_bytes = size_t{256} << 10;  // of a mailbox
};

// A layer's new list.
struct LayerUpdate {
  int layer = 0;
  moe::SlotList experts;
};

struct BalancePlan {
  uint64_t number = 0;
  std::vector<LayerUpdate> updates;
};

// The same in shared memory; any thread adds.
struct BalanceCounters {
  std::atomic<int64_t> num_committed{0};
  std::atomic<int64_t> num_dropped{0};
  std::atomic<int64_t> num_slots{0};
  std::atomic<int64_t> num_bytes{0};
  std::atomic<int64_t> busy_ns{0};
  std::atomic<int64_t> busy_steps{0};
  std::atomic<int64_t> stall_ns{0};
  std::atomic<int64_t> from_same_rank{0};
  std::atomic<int64_t> from_peer{0};
  std::atomic<int64_t> from_pool{0};
  std::atomic<int64_t> from_checkpoint{0};
  std::atomic<int64_t> num_corrupt{0};
  SharedText last_drop{};  // the planner's
};

// What a rank says of plans; each word is a plan's number.
struct alignas(64) BalanceCell {
  comm::Signal bell;  // whoever has news for the rank's mover rings
  std::atomic<uint64_t> ready{0};
  std::atomic<uint64_t> failed{0};    // then `reason` says why
  std::atomic<uint64_t> released{0};  // a plan that was dropped, or one that it flipped to
  std::atomic<uint64_t> epoch{0};     // of its last steps
  std::atomic<int64_t> flip_ns{0};    // that the change to it took, before the first of them
  SharedText reason{};
};

// Whose turn it is with a mailbox.
enum class MailState : uint8_t {
  kIdle,     // the owner's: it may write the request
  kAsked,    // the source may take it, the owner may take it back
  kServing,  // the source's: it writes the answer
  kAnswered,
};

// A request for bytes of an expert, and their way: the owner (who gets the bytes) asks, the source
// writes the answer and, for a piece, the bytes into the owner's chunk.
struct alignas(64) Mailbox {
  // The state, the source's rank and a sequence number: WordOf. Whoever has the turn writes.
  std::atomic<uint64_t> word{0};
  int32_t layer = 0;
  int32_t local_slot = 0;
  uint64_t offset = 0;
  uint64_t length = 0;  // 0: the checksum of the whole expert is all that is wanted
  uint64_t checksum = 0;
  bool is_served = false;  // else the source has no such bytes

  static constexpr uint64_t WordOf(MailState state, int source, uint32_t sequence) {
    return uint64_t{sequence} << 32 | static_cast<uint64_t>(source) << 8 |
           static_cast<uint64_t>(state);
  }
  static constexpr uint64_t With(uint64_t word, MailState state) {
    return (word & ~uint64_t{0xFF}) | static_cast<uint64_t>(state);
  }
  static constexpr MailState StateOf(uint64_t word) { return static_cast<MailState>(word & 0xFF); }
  static constexpr int SourceOf(uint64_t word) { return static_cast<int>(word >> 8 & 0xFF'FFFF); }
};

// Steps are heard of later than they run: so many placements can be read, the newest included.
inline constexpr int kKeptPlacements = 8;

class BalanceBoard {
 public:
  // Of memory that begins as zeros.
  static size_t NumBytes(const BalanceShape& shape);

  // memory: NumBytes(shape) bytes at a multiple of 64, the same ones for all.
  BalanceBoard(const BalanceShape& shape, std::span<std::byte> memory);

  const BalanceShape& shape() const { return shape_; }

  // The planner writes a plan and its hash, publishes its number, and rings every rank. All ranks
  // have released the one before.
  void Publish(const BalancePlan& plan) const;
  // The number of the last one published.
  uint64_t published() const;
  // That one. kCorrupt: it is not what was written, or more than the shape has room for.
  Result<BalancePlan> Read() const;

  // The planner's word on the plan under way; it rings every rank.
  void Commit(uint64_t number) const;
  void Drop(uint64_t number) const;
  uint64_t committable() const;
  uint64_t dropped() const;

  comm::Signal& planner_bell() const;
  BalanceCell& CellOf(int rank) const;
  Mailbox& MailboxOf(int rank) const;
  std::span<std::byte> ChunkOf(int rank) const;
  void RingAll() const;

  BalanceCounters& counters() const;
  // Of one moment each number, not of the same one. Any thread of any process.
  moe::BalanceStatus ReadStatus() const;

  // What every place of every layer holds with the placement of `epoch`, for whoever watches. The
  // planner alone writes, before any step uses it: the layers that change, at the start all of
  // them.
  void Show(uint64_t epoch, std::span<const LayerUpdate> updates) const;
  // Empty: not shown yet, or kKeptPlacements have come since.
  std::vector<moe::SlotList> ReadPlaces(uint64_t epoch) const;

 private:
  struct Head;
  Head& head() const { return *reinterpret_cast<Head*>(memory_.data()); }
  std::span<int32_t> PlanWords() const;
  // [layers, places], of one of the placements that are kept.
  std::span<int32_t> PlacesOf(uint64_t index) const;

  BalanceShape shape_;
  std::span<std::byte> memory_;
};

}  // namespace moebius::rank
