// The exchange between GPUs that map each other's memory, on the stream of a rank's steps: what
// kernels/cuda/exchange has, as moe::Exchange. Calls queue kernels and return; graphs may hold
// them. All spans and rows are device memory. The rank's device thread calls.
//
// Rows arrive grouped by slot, so `pairs` is empty. Weights stay with the kernels: combine is
// always weighted, by 1 where dispatch got none, and they do not come with the rows. Where experts
// would quantise their rows the sender does: half the bytes travel, once for all copies of a row.
#pragma once

#include <vector>

#include "comm/cuda/device_communicator.h"
#include "kernels/cuda/exchange/exchange.h"
#include "moe/exchange/exchange.h"
#include "moe/exchange/protocol.h"

namespace moebius::moe {

class DeviceExchange final : public Exchange {
 public:
  // kUnsupported names what the kernels do not take.
  static Status Check(const ExchangeShape& shape);
  static Result<comm::PeerMemory> Allocate(const ExchangeShape& shape);

  // Allocates on the current device what it needs besides `memory`, which is this member's;
  // group.bases are complete. mode: kAuto: by the fullest rank's tokens.
  static Result<std::unique_ptr<DeviceExchange>> Create(const ExchangeShape& shape,
                                                        ExchangeMode mode, comm::DeviceGroup group,
                                                        comm::PeerMemory* memory);

  // Queues the counting of the step: before the launch of a graph, never in it.
  void BeginStep(int64_t step, std::chrono::steady_clock::time_point deadline) override;
  Status status() const override;
  ExchangeMode mode() const override { return mode_; }
  bool brings_weights() const override { return false; }

  DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                          Arena& arena) override;
  size_t ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const override;
  int64_t MaxPlaces(int64_t max_rows, int64_t k) const override;
  void Combine(kernels::ExecContext& ctx, const CombineArgs& args) override;

 private:
  DeviceExchange(const ExchangeShape& shape, ExchangeMode mode, comm::DeviceGroup group,
                 comm::PeerMemory* memory);
  Status AllocateCounts();
  void Keep(const char* error, const char* what);
  void LeaveRoom();
  cuda::exchange::Grid GridOf(int throughput_blocks) const;

  const ExchangeShape shape_;
  const ExchangeMode wish_;
  const comm::DeviceGroup group_;
  comm::PeerMemory* memory_;
  cuda::exchange::Group peers_;
  platform::cuda::DeviceMemory counts_;  // the step; one for nothing; 0, 1, ... max_tokens
  platform::cuda::DeviceMemory ones_;    // [max_tokens * k] float32
  mutable Status status_;

  // Of the call under way.
  cuda::exchange::Sequence sequence_;
  ExchangeMode mode_ = ExchangeMode::kLatency;
  int64_t num_tokens_ = 0;
  int64_t most_tokens_ = 1;  // of any rank
  const int32_t* slots_ = nullptr;
  const float* weights_ = nullptr;
};

}  // namespace moebius::moe
