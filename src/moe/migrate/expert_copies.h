// Copies of experts' weights where steps run behind the host, on a GPU: beside the steps, while
// they run, and in their order, between two of them. Behind an interface so that the store of
// weights is tested without a GPU. Owned by the rank; outlives the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace moebius::moe {

class ExpertCopies {
 public:
  virtual ~ExpertCopies() = default;

  // The mover's thread: between any memory of the host, of this device and of its peers, which
  // stays as it is until Wait. Begins when all that was queued in the steps' order before is done,
  // and delays no step.
  virtual void Copy(void* to, const void* from, size_t num_bytes) = 0;
  // Until all these copies are done.
  virtual void Wait() = 0;
  // Of memory of this device or of a peer, after the copies before; the same function on all
  // devices.
  virtual uint64_t ChecksumOf(std::span<const std::byte> bytes) = 0;

  // The device thread, between steps: within this device, after the steps that were launched before
  // and before those that come; returns at once. EndOfQueue follows the last one of a change.
  virtual void Queue(void* to, const void* from, size_t num_bytes) = 0;
  virtual void EndOfQueue() = 0;

  // The first failure of any of these; what they gave since is worth nothing.
  virtual Status status() const = 0;
};

}  // namespace moebius::moe
