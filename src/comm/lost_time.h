// Time in which nothing of this process ran: a container that was paused, a process group that was
// stopped, a machine with no time left for it. Nobody is late for such time, so bounds of waits
// move by it. A Pulse notices it; without one none is known of. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "comm/signal.h"

namespace moebius::comm {

// Less is what busy machines do to a thread, and what bounds allow for.
constexpr auto kLeastGap = std::chrono::milliseconds(1000);
constexpr auto kPulsePeriod = std::chrono::milliseconds(100);

// A thread that looks at the clock every kPulsePeriod, and calls `beat` then (the first time before
// the constructor's caller can know). Who makes ranks has one; there may be several.
class Pulse {
 public:
  explicit Pulse(std::function<void()> beat = [] {});
  ~Pulse();

 private:
  void Loop();

  const std::function<void()> beat_;
  std::mutex mutex_;
  std::condition_variable ending_;
  bool is_ending_ = false;
  std::thread thread_;
};

// Of the time since then: the gaps of kLeastGap or more between beats, one that has only now ended
// included.
std::chrono::nanoseconds LostSince(Clock::time_point begin);

namespace internal {

// The account behind LostSince, apart from clock and threads for its test.
class LostTime {
 public:
  void Open(Clock::time_point now);  // one more pulse
  void Close();                      // one less; without any no time is lost
  void Beat(Clock::time_point now);  // of any of them
  std::chrono::nanoseconds Since(Clock::time_point begin, Clock::time_point now) const;

 private:
  struct Gap {
    Clock::time_point begin;
    Clock::time_point end;
  };
  static constexpr int kNumGaps = 16;  // the last ones: no wait lives through more

  mutable std::mutex mutex_;
  int num_pulses_ = 0;
  Clock::time_point last_beat_;
  Gap gaps_[kNumGaps] = {};
  int num_gaps_ = 0;  // ever seen
};

}  // namespace internal
}  // namespace moebius::comm
