// The collectives of a forward pass between GPUs that map each other's memory, on the stream of a
// rank's steps: calls queue a kernel and return, graphs may hold them. All data is device memory.
// What only pipelines and training need (sums, messages) is not here: such a call is an error that
// sticks. The rank's device thread calls.
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

class DeviceCommunicator final : public Communicator {
 public:
  // Of a member's PeerMemory. staging_bytes: of a piece that goes at once, the same for all, at
  // least the widest row.
  static Result<PeerMemory> Allocate(size_t staging_bytes);

  // memory: this member's; group.bases are complete.
  DeviceCommunicator(DeviceGroup group, PeerMemory* memory, size_t staging_bytes);

  int rank() const override { return group_.info.rank; }
  int size() const override { return group_.info.size(); }
  void BeginStep(int64_t /*step*/, Clock::time_point /*deadline*/) override {}
  const Status& status() const override;

  void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void AllGatherRows(Mat mine, Mat all, std::span<const int64_t> row_begin) override;
  void AllGatherColumns(Mat mine, Mat all, std::span<const int64_t> column_begin) override;
  void Barrier() override { Refuse("a barrier"); }
  void AllReduce(Mat /*data*/) override { Refuse("an all-reduce"); }
  void ReduceScatter(Mat /*data*/, Mat /*out*/, std::span<const int64_t> /*row_begin*/) override {
    Refuse("a reduce-scatter");
  }
  void Broadcast(int /*root*/, std::span<std::byte> /*data*/) override { Refuse("a broadcast"); }
  void Send(int /*peer*/, std::span<const std::byte> /*data*/) override { Refuse("a message"); }
  void Receive(int /*peer*/, std::span<std::byte> /*data*/) override { Refuse("a message"); }

  CommBytes bytes() const override { return bytes_; }

 private:
  struct Rows;  // what each member brings
  void Gather(const Rows& rows, Mat mine, Mat all);
  void Refuse(const char* call);

  const DeviceGroup group_;
  PeerMemory* memory_;
  const int64_t staging_bytes_;
  mutable Status status_;
  CommBytes bytes_;
};

}  // namespace moebius::comm
