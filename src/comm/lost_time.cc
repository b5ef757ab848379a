#include "comm/lost_time.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

namespace moebius::comm {
namespace {

internal::LostTime& ProcessLostTime() {
  static internal::LostTime lost;
  return lost;
}

}  // namespace

namespace internal {

void LostTime::Open(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (num_pulses_++ == 0) last_beat_ = now;
}

void LostTime::Close() {
  const std::lock_guard lock(mutex_);
  --num_pulses_;
}

void LostTime::Beat(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (now - last_beat_ >= kLeastGap) gaps_[num_gaps_++ % kNumGaps] = {last_beat_, now};
  last_beat_ = std::max(last_beat_, now);
}

std::chrono::nanoseconds LostTime::Since(Clock::time_point begin, Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  std::chrono::nanoseconds lost{0};
  const auto add = [&](const Gap& gap) {
    if (gap.end > begin) lost += gap.end - std::max(gap.begin, begin);
  };
  for (int i = 0; i < std::min(num_gaps_, kNumGaps); ++i) add(gaps_[i]);
  // Who asks may run before the pulse does.
  if (num_pulses_ > 0 && now - last_beat_ >= kLeastGap) add({last_beat_, now});
  return lost;
}

}  // namespace internal

Pulse::Pulse(std::function<void()> beat) : beat_(std::move(beat)) {
  ProcessLostTime().Open(Clock::now());
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "heartbeat");
    Loop();
  });
}

Pulse::~Pulse() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  ending_.notify_all();
  thread_.join();
  ProcessLostTime().Close();
}

void Pulse::Loop() {
  std::unique_lock lock(mutex_);
  do {
    ProcessLostTime().Beat(Clock::now());
    beat_();
  } while (!ending_.wait_for(lock, kPulsePeriod, [&] { return is_ending_; }));
}

std::chrono::nanoseconds LostSince(Clock::time_point begin) {
  return ProcessLostTime().Since(begin, Clock::now());
}

}  // namespace moebius::comm
