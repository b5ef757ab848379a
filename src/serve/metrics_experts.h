// How tokens were spread over experts lately: the difference of counts since the start. Owned by
// Metrics; any thread may call it.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "moe/expert_stats.h"

namespace moebius::serve {

// Assignments by layer and expert over some seconds.
struct ExpertLoad {
  double seconds = 0;
  int num_layers = 0;
  int num_experts = 0;
  std::vector<int64_t> counts;  // [num_layers, num_experts]

  std::span<const int64_t> Layer(int layer) const {
    return std::span(counts).subspan(static_cast<size_t>(layer) * num_experts, num_experts);
  }
};

// One layer's spread over experts, or over ranks.
struct ExpertSpread {
  int64_t total = 0;  // tokens times experts a token
  int64_t max = 0;    // of the busiest expert
  double mean = 0;
  int64_t num_active = 0;  // experts that got any
  double imbalance() const {
    return mean > 0 ? static_cast<double>(max) / mean : 0;
  }  // 0: no token
  double balancedness() const { return max > 0 ? mean / static_cast<double>(max) : 0; }  // likewise
};
ExpertSpread SpreadOf(std::span<const int64_t> counts);

// Remembers counts of the past, so that what came within a minute or so can be told from the rest.
class ExpertWindow {
 public:
  explicit ExpertWindow(double seconds = 60) : seconds_(seconds) {}

  // What came since about `seconds` ago (since the start when that is later; since longer ago if
  // nobody asked in between: the answer says). `now`: counts since the start, at `uptime` seconds
  // after it.
  ExpertLoad Advance(const moe::ExpertStats& now, double uptime);

 private:
  struct Past {
    double uptime;
    moe::ExpertStats counts;
  };

  const double seconds_;
  std::mutex mutex_;
  std::deque<Past> past_;  // oldest first; only the first may be older than the window
};

}  // namespace moebius::serve
