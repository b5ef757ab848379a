// How tests of this room pass the time: deadlines, one of them reached by a hang only, and sleeps
// at random.
#pragma once

#include <chrono>
#include <random>
#include <thread>

#include "comm/signal.h"

namespace moebius::rank::testing {

inline comm::Clock::time_point In(std::chrono::milliseconds time) {
  return comm::Clock::now() + time;
}
constexpr std::chrono::milliseconds kOneMinute = std::chrono::seconds(60);

inline void Dawdle(std::minstd_rand& random) {
  if (random() % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
}

}  // namespace moebius::rank::testing
