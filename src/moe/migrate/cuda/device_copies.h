// ExpertCopies of a GPU: a stream of low priority beside that of the steps. Peers' memory is
// reached over the links between GPUs, by the copy engines. The rank owns it.
#pragma once

#include <memory>
#include <mutex>

#include "moe/migrate/expert_copies.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/stream.h"

namespace moebius::moe {

class DeviceCopies final : public ExpertCopies {
 public:
  // On the current device, which is `device`. steps: its stream of steps; outlives this.
  static Result<std::unique_ptr<DeviceCopies>> Create(int device,
                                                      const platform::cuda::Stream& steps);

  void Copy(void* to, const void* from, size_t num_bytes) override;
  void Wait() override;
  uint64_t ChecksumOf(std::span<const std::byte> bytes) override;
  void Queue(void* to, const void* from, size_t num_bytes) override;
  void EndOfQueue() override;
  Status status() const override;

 private:
  DeviceCopies(int device, const platform::cuda::Stream& steps) : device_(device), steps_(steps) {}
  // Queues work on the side stream, behind the last change.
  template <typename Work>
  void QueueBeside(const Work& work);
  void Keep(const Status& status);

  const int device_;
  const platform::cuda::Stream& steps_;
  platform::cuda::Stream side_;
  platform::cuda::Event queued_;      // the end of the last change, on steps_
  platform::cuda::Event done_;        // of what runs beside
  platform::cuda::DeviceMemory sum_;  // of all that was ever summed up
  uint64_t last_sum_ = 0;
  platform::cuda::PinnedMemory sum_on_host_;
  mutable std::mutex mutex_;  // of status_
  Status status_;
};

}  // namespace moebius::moe
