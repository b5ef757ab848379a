// Open files from each rank of a machine to each other one, which processes can hand over by a
// socket alone: every rank opens a mailbox (a Unix socket whose name the kernel chooses and that is
// in no folder), tells the others its address, and sends each of them one letter. Anybody on the
// machine may write to such a name, so letters count only from the processes that the addresses
// name; the kernel says whose they are.
//
// One thread at a time uses a mailbox. Ranks may be processes, or threads of one.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "comm/signal.h"
#include "platform/file_descriptor.h"

namespace moebius::comm {

// Where a rank gets letters, as ranks tell each other in one all-gather.
struct MailAddress {
  int64_t process = 0;
  int64_t name_bytes = 0;
  std::array<char, 16> name = {};
};

class DescriptorMail {
 public:
  // More than a rank has to hand over.
  static constexpr size_t kMaxDescriptors = 16;
  using Descriptors = std::vector<platform::FileDescriptor>;

  // Letters that come before Exchange wait for it.
  static Result<DescriptorMail> Open();

  const MailAddress& address() const { return address_; }

  // Collective; what a rank sends twice counts once: sends `mine` to every rank but this one, and
  // returns what each has sent, in its order; nothing of this rank's own. all: the address of each
  // rank. kDeadline names one that did not come in time; kUnavailable: one that has gone, or the
  // abort word is set.
  Result<std::vector<Descriptors>> Exchange(int rank, std::span<const MailAddress> all,
                                            const Descriptors& mine, const WaitBound& bound);

 private:
  DescriptorMail(platform::FileDescriptor socket, const MailAddress& address)
      : socket_(std::move(socket)), address_(address) {}

  platform::FileDescriptor socket_;
  MailAddress address_;
};

}  // namespace moebius::comm
