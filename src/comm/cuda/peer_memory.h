// A rank's part of memory that a group of GPUs shares: allocated and zeroed here, addressed by
// every member (comm/cuda/peer_directory.h), and the word by which kernels end their waits. Members
// that are processes may give it up, or end, in any order; those of one process stop all that uses
// it first. Owned by whoever owns the group's communicator or exchange; the device thread calls,
// but for Allocate.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/group_watch.h"
#include "comm/signal.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/shareable_memory.h"
#include "platform/cuda/stream.h"

namespace moebius::comm {

class PeerMemory {
 public:
  // On the current device; zeroed when it returns. abort_offset: of the kernels' abort word.
  static Result<PeerMemory> Allocate(size_t num_bytes, size_t abort_offset);

  std::byte* data() const { return memory_.data(); }
  const platform::cuda::ShareableMemory& memory() const { return memory_; }
  // Host memory that kernels copy the abort word to.
  uint32_t* host_abort() const { return reinterpret_cast<uint32_t*>(host_abort_.data()); }

  // OK, or who was silent, by the first wait that expired; the deployment's abort word is set then.
  // Where another rank saw a failure first (that word is set), this rank's kernels are told, too.
  Status Check(const GroupInfo& info);

 private:
  platform::cuda::ShareableMemory memory_;
  platform::cuda::PinnedMemory host_abort_;  // and the word that Check copies to the device
  platform::cuda::Stream stream_;            // beside the steps'
  size_t abort_offset_ = 0;
  bool is_told_ = false;
};

}  // namespace moebius::comm
