#include "rank/frame_socket.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace moebius::rank {
namespace {

using Length = uint32_t;  // before each frame, in this machine's order
constexpr size_t kReadBytes = size_t{64} << 10;

}  // namespace

Result<std::pair<int, int>> FrameSocket::Pair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return MakeError(ErrorCode::kUnavailable, "cannot make a socket pair: {}",
                     std::strerror(errno));
  }
  return std::pair(ends[0], ends[1]);
}

FrameSocket::FrameSocket(int descriptor)
    : descriptor_(descriptor), sender_([this] {
        pthread_setname_np(pthread_self(), "frames");
        SendLoop();
      }) {}

FrameSocket::~FrameSocket() {
  {
    std::unique_lock lock(mutex_);
    is_ending_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, kGoodbye,
                      [&] { return is_closed_ || (waiting_.empty() && !is_sending_); });
  }
  Close();
  sender_.join();
  close(descriptor_);
}

void FrameSocket::Send(const std::string& frame) {
  MOEBIUS_CHECK_LE(frame.size(), kMaxFrame);
  const auto length = static_cast<Length>(frame.size());
  {
    const std::lock_guard lock(mutex_);
    if (is_closed_) return;
    waiting_.append(reinterpret_cast<const char*>(&length), sizeof(length));
    waiting_ += frame;
  }
  changed_.notify_all();
}

bool FrameSocket::is_idle() const {
  const std::lock_guard lock(mutex_);
  return waiting_.empty() && !is_sending_;
}

void FrameSocket::SendLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return is_closed_ || is_ending_ || !waiting_.empty(); });
    if (is_closed_ || waiting_.empty()) return;
    const std::string bytes = std::exchange(waiting_, {});
    is_sending_ = true;
    lock.unlock();
    const bool was_sent = SendAll(bytes);
    if (!was_sent) Close();
    lock.lock();
    is_sending_ = false;
    changed_.notify_all();
  }
}

bool FrameSocket::SendAll(const std::string& bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t sent = send(descriptor_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    done += static_cast<size_t>(sent);
  }
  return true;
}

Result<std::string> FrameSocket::Receive() {
  while (true) {
    const size_t there = received_.size() - taken_;
    if (there >= sizeof(Length)) {
      Length length = 0;
      std::memcpy(&length, received_.data() + taken_, sizeof(length));
      if (length > kMaxFrame) {
        return MakeError(ErrorCode::kCorrupt, "a frame of {} bytes, expected at most {}", length,
                         kMaxFrame);
      }
      if (there - sizeof(Length) >= length) {
        std::string frame = received_.substr(taken_ + sizeof(Length), length);
        taken_ += sizeof(Length) + length;
        return frame;
      }
    }
    received_.erase(0, std::exchange(taken_, 0));
    const size_t before = received_.size();
    received_.resize(before + kReadBytes);
    const ssize_t got = recv(descriptor_, received_.data() + before, kReadBytes, 0);
    received_.resize(before + static_cast<size_t>(got > 0 ? got : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return MakeError(ErrorCode::kUnavailable, "the connection is closed{}",
                       received_.empty() ? "" : " in the middle of a frame");
    }
  }
}

void FrameSocket::Close() {
  {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    waiting_.clear();
  }
  shutdown(descriptor_, SHUT_RDWR);
  changed_.notify_all();
}

}  // namespace moebius::rank
