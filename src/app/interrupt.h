// Ctrl-C: the first ends what is in progress (an answer, a server), the next (or one while nothing
// is in progress) the program. A Ctrl-C within half a second of the first is the same: `timeout`
// and shells send it to a process and to its group. Made in main before any other thread, so that
// all of them leave the signal to this one.
#pragma once

#include <atomic>
#include <mutex>
#include <stop_token>
#include <thread>

namespace moebius::app {

class Interrupt {
 public:
  static constexpr int kExitCode = 130;  // of a program that SIGINT ended

  // With terminate_too SIGTERM does what SIGINT does; else it ends the program as ever.
  explicit Interrupt(bool terminate_too = false);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Until End, SIGINT asks this token to stop instead of ending the program.
  std::stop_token Begin();
  void End();

 private:
  void Wait();

  const bool terminate_too_;
  std::mutex mutex_;
  std::stop_source current_{std::nostopstate};
  std::thread thread_;
};

}  // namespace moebius::app
