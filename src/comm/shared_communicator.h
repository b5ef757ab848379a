// A Communicator over memory that all members see: heap for threads of a process (inproc), an
// inherited descriptor for processes (shm); it knows no difference. A member writes its part into a
// buffer of its own and raises its signal; the others wait for the signal and read. Buffers and
// signals are two, used in turn: who sees all signals of round n + 1 knows that round n was read.
#pragma once

#include <functional>

#include "comm/communicator.h"
#include "comm/group_watch.h"

namespace moebius::comm {

// For tests of what goes wrong: called before each Raise with its round. False: the signal is lost.
// It may sleep (a slow member).
using RaiseHook = std::function<bool(uint32_t round)>;

class SharedCommunicator final : public Communicator {
 public:
  // Letters that may lie between two members, each of up to chunk_bytes: what Send puts down
  // without waiting for the other's Receive. Rounded up to a power of two, as numbers of letters
  // wrap.
  static constexpr int kNumLetters = 2;

  // Of a group's memory, which begins as zeros. chunk_bytes: what a member's buffer holds; larger
  // parts take several rounds. Pages are touched as they are used.
  static size_t NumBytes(int size, size_t chunk_bytes, int num_letters = kNumLetters);

  // memory: NumBytes(info.world_ranks.size(), chunk_bytes, num_letters) bytes at a multiple of 64,
  // the same ones for every member; outlives this.
  SharedCommunicator(GroupInfo info, std::span<std::byte> memory, size_t chunk_bytes,
                     RaiseHook hook = {}, int num_letters = kNumLetters);

  int rank() const override { return watch_.info().rank; }
  int size() const override { return watch_.info().size(); }
  void BeginStep(int64_t step, Clock::time_point deadline) override {
    watch_.BeginStep(step, deadline);
  }
  const Status& status() const override { return watch_.status(); }

  void Barrier() override;
  void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void AllGatherRows(Mat mine, Mat all, std::span<const int64_t> row_begin) override;
  void AllGatherColumns(Mat mine, Mat all, std::span<const int64_t> column_begin) override;
  void AllReduce(Mat data) override;
  void ReduceScatter(Mat data, Mat out, std::span<const int64_t> row_begin) override;
  void Broadcast(int root, std::span<std::byte> data) override;
  void Send(int peer, std::span<const std::byte> data) override;
  void Receive(int peer, std::span<std::byte> data) override;
  CommBytes bytes() const override { return bytes_; }

 private:
  struct Member;   // in shared memory: two signals
  struct Mailbox;  // of an ordered pair: written, read

  std::byte* BufferOf(int member) const;  // of this round
  std::byte* LetterOf(int from, int to, uint32_t sequence) const;
  Mailbox& MailboxOf(int from, int to) const;
  // One round: everybody's buffer is written before, and may be read after. False: failed.
  bool Round(const char* call);
  // out = the sum of elements [first, first + count) of what all members wrote in this round.
  void SumBuffers(DType dtype, int64_t first, int64_t count, std::byte* out);
  // The same for rows [first, first + out.rows), which lie in the buffers without gaps.
  void SumRows(int64_t first, Mat out);
  // The second round of an all-reduce. False: failed.
  bool GatherSums(Mat rows);

  GroupWatch watch_;
  const std::span<std::byte> memory_;
  const size_t chunk_bytes_;
  const RaiseHook hook_;
  const uint32_t num_letters_;
  uint32_t round_ = 1;  // the one to come; memory begins as if round 0 were over
  // Letters, by peer.
  std::vector<uint32_t> sent_;
  std::vector<uint32_t> received_;
  std::vector<const std::byte*> parts_;  // scratch of a sum
  CommBytes bytes_;
};

}  // namespace moebius::comm
