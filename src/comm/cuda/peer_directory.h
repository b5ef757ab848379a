// Where the ranks' shared device memory is, as they tell each other when they start: threads of one
// process use the owner's address, other processes map it by a file descriptor. Owned by the rank's
// start; its thread calls, with its GPU selected.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "comm/communicator.h"
#include "comm/descriptor_mail.h"
#include "comm/signal.h"
#include "platform/cuda/shareable_memory.h"

namespace moebius::comm {

class PeerDirectory {
 public:
  static constexpr size_t kMaxParts = 5;

  // Collective over `world`, also after an error (`status`), which then is what it returns: the
  // others hear that this rank has failed. device: this rank's. parts: its memory, in an order that
  // is the same on every rank; empty (not null) where it has none. kUnsupported: the driver shares
  // no memory between processes.
  static Result<PeerDirectory> Meet(Communicator& world, const Status& status, int device,
                                    std::span<const platform::cuda::ShareableMemory* const> parts,
                                    const AbortWord& abort);

  // This rank is one of several threads of its process.
  bool shares_process() const;

  // The part of a rank, as the current device addresses it (null: it has none); once each where it
  // is of another process, then *mappings keeps it. kUnsupported: GPUs that are not linked.
  Result<std::byte*> Map(int rank, size_t part,
                         std::vector<platform::cuda::ShareableMemory>* mappings);

 private:
  struct Part {
    int64_t address = 0;  // in the rank's process
    int64_t size = 0;     // 0: none
  };
  // What a rank says.
  struct Entry {
    int64_t failed = 0;
    int64_t device = 0;  // all processes see the same
    MailAddress mail;
    std::array<Part, kMaxParts> parts = {};
  };

  // Those of `mine` to the ranks of other processes, and theirs into descriptors_.
  Status PassDescriptors(DescriptorMail& mail,
                         std::span<const platform::cuda::ShareableMemory* const> mine,
                         const AbortWord& abort);

  int rank_ = 0;
  std::vector<Entry> entries_;                                 // by rank
  std::vector<DescriptorMail::Descriptors> descriptors_ = {};  // by rank and part
};

}  // namespace moebius::comm
