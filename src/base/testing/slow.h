// Tests' limits of time on machines, and under tools, that take MOEBIUS_SLOW (1) times as long.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>

namespace moebius::testing {

inline std::chrono::milliseconds Slow(std::chrono::milliseconds time) {
  const char* times = std::getenv("MOEBIUS_SLOW");
  return time * (times != nullptr ? std::max<int64_t>(1, std::atoll(times)) : 1);
}

}  // namespace moebius::testing
