// The collectives of a forward pass between GPUs that map each other's memory, on the stream of a
// rank's steps: calls queue a kernel and return, graphs may hold them. All data is device memory.
// Messages go from a member to the next one. A group has memory for what it was allocated for:
// another call is an error that sticks. The rank's device thread calls.
#pragma once

#include <chrono>
#include <vector>

#include "comm/communicator.h"
#include "comm/cuda/peer_memory.h"
#include "comm/group_watch.h"

struct CUstream_st;

namespace moebius::comm {

struct DeviceGroup {
  GroupInfo info;
  std::vector<std::byte*> bases;  // of each member's PeerMemory
  CUstream_st* stream = nullptr;
  std::chrono::nanoseconds wait_limit = std::chrono::minutes(1);
  // Members that share a GPU: then kernels that wait leave room for those they wait for.
  int num_sharers = 1;
};

// Blocks that a waiting kernel may have where `num_sharers` ranks use one GPU; 0: as many as serve.
int MostWaitingBlocks(int num_sharers);

// What calls go through, the same for all members. Bytes that go at once: more go one after the
// other. 0: no such calls.
struct DeviceStaging {
  size_t gather = 0;     // of a member's piece, at least the widest row
  size_t message = 0;    // a multiple of 16; two wait for their receiver at most
  bool reduces = false;  // sums of any size, through 17 MB
};

class DeviceCommunicator final : public Communicator {
 public:
  // A member's PeerMemory.
  static Result<PeerMemory> Allocate(const DeviceStaging& staging);

  // memory: this member's; group.bases are complete.
  DeviceCommunicator(DeviceGroup group, PeerMemory* memory, const DeviceStaging& staging);

  int rank() const override { return group_.info.rank; }
  int size() const override { return group_.info.size(); }
  void BeginStep(int64_t /*step*/, Clock::time_point /*deadline*/) override {}
  const Status& status() const override;

  void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void AllGatherRows(Mat mine, Mat all, std::span<const int64_t> row_begin) override;
  void AllGatherColumns(Mat mine, Mat all, std::span<const int64_t> column_begin) override;
  void Barrier() override { Refuse("a barrier"); }
  // Rows without gaps between them; `out` of a reduce-scatter is not in `data`.
  void AllReduce(Mat data) override;
  void ReduceScatter(Mat data, Mat out, std::span<const int64_t> row_begin) override;
  void Broadcast(int /*root*/, std::span<std::byte> /*data*/) override { Refuse("a broadcast"); }
  // To the next member; from the one before. Data begins at a multiple of 16 bytes.
  void Send(int peer, std::span<const std::byte> data) override;
  void Receive(int peer, std::span<std::byte> data) override;

  CommBytes bytes() const override { return bytes_; }

 private:
  struct Rows;  // what each member brings
  // What all kinds of calls say of the group.
  template <typename Group>
  Group MakeGroup() const;
  void Gather(const Rows& rows, Mat mine, Mat all);
  // begin: of the elements that each member gets; none: all get all.
  void Reduce(Mat data, Mat out, std::span<const int64_t> begin);
  void Pass(bool sends, int peer, std::span<std::byte> data);
  void Keep(const char* error, const char* call);
  void Refuse(const char* call);

  const DeviceGroup group_;
  PeerMemory* memory_;
  const DeviceStaging staging_;
  mutable Status status_;
  CommBytes bytes_;
};

}  // namespace moebius::comm
