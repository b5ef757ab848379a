// Ends the process if its end takes too long: a device that hangs must not keep a server that was
// told to stop. Make it before what may hang in its destructor, so that it is destroyed after it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace moebius::app {

class LastPatience {
 public:
  LastPatience() = default;
  LastPatience(const LastPatience&) = delete;
  LastPatience& operator=(const LastPatience&) = delete;
  ~LastPatience();  // the end has come in time

  // From now on: not destroyed within `time`, standard error says that `what` does not end, and
  // the process exits with kExitFailure, whatever its threads do. Once.
  void Begin(std::chrono::milliseconds time, const char* what);

 private:
  std::mutex mutex_;
  std::condition_variable_any over_;
  std::jthread thread_;  // last: it uses the rest
};

}  // namespace moebius::app
