#include "comm/descriptor_mail.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "comm/lost_time.h"

namespace moebius::comm {
namespace {

using platform::FileDescriptor;
using Descriptors = DescriptorMail::Descriptors;

// A mailbox that is full cannot be waited for; nor can the abort word, by a poll.
constexpr int kRetryMs = 1;
constexpr int kLookMs = 20;

constexpr size_t kDescriptorBytes = DescriptorMail::kMaxDescriptors * sizeof(int);

// What a letter says beside its descriptors.
struct Letter {
  int32_t rank = 0;
  int32_t num_descriptors = 0;
};

struct Received {
  int64_t process = 0;  // by the kernel's word; 0: it says none
  Letter letter;
  Descriptors descriptors;
};

tl::unexpected<Error> SystemError(const char* what) {
  return MakeError(ErrorCode::kUnavailable, "cannot {}: {}", what, std::strerror(errno));
}

// false: its mailbox is full.
Result<bool> TrySend(int socket, const MailAddress& to, const Letter& letter,
                     const Descriptors& descriptors) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, to.name.data(), static_cast<size_t>(to.name_bytes));
  alignas(cmsghdr) std::byte control[CMSG_SPACE(kDescriptorBytes)] = {};
  iovec text = {const_cast<Letter*>(&letter), sizeof(letter)};
  msghdr message = {};
  message.msg_name = &name;
  message.msg_namelen =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + static_cast<size_t>(to.name_bytes));
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    const size_t bytes = descriptors.size() * sizeof(int);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(bytes);
    for (size_t i = 0; i < descriptors.size(); ++i) {
      const int value = descriptors[i].get();
      std::memcpy(CMSG_DATA(head) + i * sizeof(int), &value, sizeof(int));
    }
  }
  if (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
  // ETOOMANYREFS: more of them are on their way than this user may have open.
  for (const int full : {EAGAIN, ENOBUFS, ENOMEM, EINTR, ETOOMANYREFS}) {
    if (errno == full) return false;
  }
  return SystemError("send descriptors");
}

// None: no letter has come.
Result<std::optional<Received>> TryReceive(int socket) {
  Received received;
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(kDescriptorBytes)];
  iovec text = {&received.letter, sizeof(received.letter)};
  msghdr message = {};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t bytes = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (bytes < 0) {
    if (errno == EAGAIN || errno == EINTR) return std::nullopt;
    return SystemError("receive descriptors");
  }
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET) continue;
    const std::byte* const data = reinterpret_cast<std::byte*>(CMSG_DATA(head));
    const size_t size = head->cmsg_len - CMSG_LEN(0);
    if (head->cmsg_type == SCM_CREDENTIALS && size == sizeof(ucred)) {
      ucred sender;
      std::memcpy(&sender, data, sizeof(sender));
      received.process = sender.pid;
    } else if (head->cmsg_type == SCM_RIGHTS) {
      for (size_t i = 0; i < size / sizeof(int); ++i) {
        int value = -1;
        std::memcpy(&value, data + i * sizeof(int), sizeof(int));
        received.descriptors.emplace_back(value);
      }
    }
  }
  if (bytes != static_cast<ssize_t>(sizeof(Letter))) received.letter = {.rank = -1};
  return received;
}

// One rank's side of an exchange.
class Round {
 public:
  Round(int socket, int rank, std::span<const MailAddress> all, const Descriptors& mine)
      : socket_(socket), rank_(rank), all_(all), mine_(mine), peers_(all.size()) {
    peers_[static_cast<size_t>(rank)] = {.is_sent = true, .has_come = true, .descriptors = {}};
  }

  // Sends and receives what can be at once.
  Status Turn() {
    for (size_t r = 0; r < peers_.size(); ++r) {
      if (peers_[r].is_sent) continue;
      const Letter letter = {.rank = rank_, .num_descriptors = static_cast<int32_t>(mine_.size())};
      const Result<bool> is_sent = TrySend(socket_, all_[r], letter, mine_);
      if (!is_sent) {
        return MakeError(ErrorCode::kUnavailable, "rank {} (process {}): {}", r, all_[r].process,
                         is_sent.error().message());
      }
      peers_[r].is_sent = *is_sent;
    }
    // Not until there is none: a stranger may write without end.
    for (size_t i = 0; i < peers_.size(); ++i) {
      MOEBIUS_ASSIGN(std::optional<Received> received, TryReceive(socket_));
      if (!received) break;
      MOEBIUS_TRY(Take(std::move(*received)));
    }
    return {};
  }

  bool all_sent() const { return std::ranges::all_of(peers_, &Peer::is_sent); }
  bool is_done() const { return all_sent() && std::ranges::all_of(peers_, &Peer::has_come); }

  tl::unexpected<Error> LateError(std::chrono::nanoseconds limit) const {
    const auto silent = std::ranges::find(peers_, false, &Peer::has_come);
    const auto full = std::ranges::find(peers_, false, &Peer::is_sent);
    const bool is_silent = silent != peers_.end();
    const auto late = static_cast<size_t>((is_silent ? silent : full) - peers_.begin());
    return MakeError(ErrorCode::kDeadline, "rank {} (process {}) {} descriptors within {:.1f} s",
                     late, all_[late].process, is_silent ? "sent no" : "took no",
                     std::chrono::duration<double>(limit).count());
  }

  std::vector<Descriptors> Finish() {
    std::vector<Descriptors> descriptors;
    for (Peer& peer : peers_) descriptors.push_back(std::move(peer.descriptors));
    return descriptors;
  }

 private:
  struct Peer {
    bool is_sent = false;
    bool has_come = false;
    Descriptors descriptors;
  };

  // Whatever is no rank's first letter is dropped, with its descriptors.
  Status Take(Received received) {
    const auto rank = static_cast<size_t>(received.letter.rank);
    if (rank >= peers_.size() || received.process != all_[rank].process || peers_[rank].has_come) {
      return {};
    }
    const auto expected = static_cast<size_t>(received.letter.num_descriptors);
    if (received.descriptors.size() != expected) {
      rlimit limit = {};
      getrlimit(RLIMIT_NOFILE, &limit);
      return MakeError(ErrorCode::kUnavailable,
                       "{} of {} descriptors of rank {} came, expected all: this process may have "
                       "{} open (ulimit -n)",
                       received.descriptors.size(), expected, rank, limit.rlim_cur);
    }
    peers_[rank].has_come = true;
    peers_[rank].descriptors = std::move(received.descriptors);
    return {};
  }

  const int socket_;
  const int rank_;
  const std::span<const MailAddress> all_;
  const Descriptors& mine_;
  std::vector<Peer> peers_;
};

}  // namespace

Result<DescriptorMail> DescriptorMail::Open() {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) return SystemError("open a mailbox for descriptors");
  // Before it has a name: each letter shall say whose it is.
  const int on = 1;
  if (setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0) {
    return SystemError("ask for the senders of descriptors");
  }
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  // An address without a path: the kernel chooses an abstract one.
  if (bind(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)) != 0) {
    return SystemError("name a mailbox for descriptors");
  }
  socklen_t length = sizeof(name);
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0) {
    return SystemError("ask for the name of a mailbox");
  }
  MailAddress address = {.process = getpid(),
                         .name_bytes = length - int64_t{offsetof(sockaddr_un, sun_path)}};
  const auto name_bytes = static_cast<size_t>(address.name_bytes);
  if (address.name_bytes <= 0 || name_bytes > address.name.size()) {
    return MakeError(ErrorCode::kUnsupported,
                     "a mailbox for descriptors has a name of {} bytes, expected 1 to {}",
                     address.name_bytes, address.name.size());
  }
  std::memcpy(address.name.data(), name.sun_path, name_bytes);
  return DescriptorMail(std::move(socket), address);
}

Result<std::vector<Descriptors>> DescriptorMail::Exchange(int rank,
                                                          std::span<const MailAddress> all,
                                                          const Descriptors& mine,
                                                          const WaitBound& bound) {
  MOEBIUS_CHECK_LE(mine.size(), kMaxDescriptors);
  Round round(socket_.get(), rank, all, mine);
  while (true) {
    MOEBIUS_TRY(round.Turn());
    if (round.is_done()) return round.Finish();
    if (bound.abort != nullptr && bound.abort->is_set()) {
      return MakeError(ErrorCode::kUnavailable,
                       "the passing of descriptors was given up: rank {} saw a failure",
                       bound.abort->seen_by());
    }
    if (Clock::now() >= bound.deadline + LostSince(bound.since)) {
      return round.LateError(bound.deadline - bound.since);
    }
    pollfd news = {.fd = socket_.get(), .events = POLLIN, .revents = 0};
    poll(&news, 1, round.all_sent() ? kLookMs : kRetryMs);
  }
}

}  // namespace moebius::comm
