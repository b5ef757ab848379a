// From the leader of a data-parallel group to its followers: blocks of bytes (a step's plan), in
// order, each to every follower, through a ring of slots in shared memory. A block that is larger
// than a slot takes several, one after the other, so there is no largest block; slots are sized for
// the usual one (engine::MaxPlanBytes).
//
// In the group, member 0 is the leader. One thread of its rank calls Push, one thread of each
// follower's rank calls Pop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "comm/group_watch.h"
#include "comm/signal.h"

namespace moebius::rank {

struct StepRingShape {
  int num_followers = 0;
  size_t slot_bytes = 0;
  int num_slots = 4;
};

// What lies where in the ring's memory. Pieces of blocks are counted from 1 on; piece n lies in
// slot n % num_slots.
class StepRing {
 public:
  struct Slot {
    uint64_t* bytes_left;  // of the block, from this piece on
    std::byte* data;
  };

  // Of the ring's memory, which begins as zeros. Pages are touched as they are used.
  static size_t NumBytes(const StepRingShape& shape);

  // memory: NumBytes(shape) bytes at a multiple of 64; outlives this.
  StepRing(const StepRingShape& shape, std::span<std::byte> memory);

  comm::Signal& written() const;           // the last piece that is there
  comm::Signal& read(int follower) const;  // the last piece that it has taken
  Slot SlotOf(uint64_t piece) const;
  const StepRingShape& shape() const { return shape_; }

 private:
  StepRingShape shape_;
  std::span<std::byte> memory_;
};

class StepSender {
 public:
  StepSender(comm::GroupInfo info, const StepRingShape& shape, std::span<std::byte> memory);

  // Waits while the slowest follower is num_slots behind. kDeadline names it and sets the group's
  // abort word; kUnavailable: the deployment has failed. After an error, part of the block may be
  // gone, and every later call gives the error again. kInvalidArgument: more than kMaxBlockBytes.
  Status Push(std::span<const std::byte> block, comm::Clock::time_point deadline);

 private:
  bool WaitForSlot();

  comm::GroupWatch watch_;
  const StepRing ring_;
  int64_t num_blocks_ = 0;   // errors call them steps
  uint64_t next_piece_ = 1;  // signals carry its low half
};

class StepReceiver {
 public:
  StepReceiver(comm::GroupInfo info, const StepRingShape& shape, std::span<std::byte> memory);

  // The next block: a copy, which nobody else writes to; lives until the next call. kDeadline: it
  // is not there yet, which is no failure, as the leader may have nothing to do; the next call goes
  // on. kUnavailable: the deployment has failed. kCorrupt: the ring's memory is.
  Result<std::span<const std::byte>> Pop(comm::Clock::time_point deadline);
  // Whether the next block has begun to come.
  bool HasBlock() const;

 private:
  Status TakePiece();

  comm::GroupWatch watch_;
  const StepRing ring_;
  int64_t num_blocks_ = 0;
  uint64_t next_piece_ = 1;  // signals carry its low half
  std::vector<std::byte> block_;
  size_t num_taken_ = 0;      // bytes of block_
  bool is_in_block_ = false;  // some pieces of it are there, others are not
};

constexpr size_t kMaxBlockBytes = size_t{1} << 30;

}  // namespace moebius::rank
