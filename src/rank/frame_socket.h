// Frames of bytes between two processes of a machine, over one end of a socket pair. A thread of
// its own sends, so that whoever has something to say never waits for the other side; what it has
// not taken yet is kept here. Send and Close: any thread; Receive: one at a time.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "base/result.h"

namespace moebius::rank {

class FrameSocket {
 public:
  // Two connected descriptors, closed where a program is executed. kUnavailable: there are none.
  static Result<std::pair<int, int>> Pair();

  explicit FrameSocket(int descriptor);  // takes it
  // Waits up to kGoodbye until the other side has taken what is left, then closes.
  ~FrameSocket();
  FrameSocket(const FrameSocket&) = delete;
  FrameSocket& operator=(const FrameSocket&) = delete;

  // At most kMaxFrame bytes. Has no effect once either side has closed.
  void Send(const std::string& frame);
  // All that was given to Send is with the system.
  bool is_idle() const;

  // Waits for the next frame. kUnavailable: either side has closed, and all that the other one sent
  // before has been received. kCorrupt: these are no frames.
  Result<std::string> Receive();

  // Both directions, at once: a Receive under way ends.
  void Close();

  static constexpr size_t kMaxFrame = size_t{1} << 28;
  static constexpr auto kGoodbye = std::chrono::seconds(2);

 private:
  void SendLoop();
  bool SendAll(const std::string& bytes) const;

  const int descriptor_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;  // frames not yet given to the system
  bool is_sending_ = false;
  bool is_ending_ = false;
  std::atomic<bool> is_closed_{false};

  std::string received_;  // Receive's own: bytes, of which the first taken_ are done with
  size_t taken_ = 0;

  std::thread sender_;  // last: it uses the rest
};

}  // namespace moebius::rank
