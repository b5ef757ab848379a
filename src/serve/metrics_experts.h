// How tokens were spread over experts lately: the difference of counts since the start. Owned by
// Metrics; any thread may call it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "moe/expert_stats.h"

namespace moebius::serve {

// Rows that the experts of all ranks computed.
struct ExpertRows {
  int64_t computed = 0;
  int64_t on_node = 0;  // of those, on their token's own machine
  int64_t at_home = 0;  // and on its own rank
  int64_t by_copy = 0;  // of those, by one of several copies of their expert

  ExpertRows operator-(const ExpertRows& then) const {
    return {computed - then.computed, on_node - then.on_node, at_home - then.at_home,
            by_copy - then.by_copy};
  }
};

// Assignments by layer and expert over some seconds.
struct ExpertLoad {
  double seconds = 0;
  moe::ExpertStats counts;
  ExpertRows rows;
  // What came in windows of as many seconds before this one, the newest first; at most two.
  std::vector<moe::ExpertStats> earlier;

  int num_layers() const { return counts.num_layers(); }
  int num_experts() const { return counts.num_experts(); }
  std::span<const int64_t> Layer(int layer) const { return counts.Layer(layer); }
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
  // nobody asked in between: the answer says). `now`, `rows`: since the start, at `uptime` seconds
  // after it.
  ExpertLoad Advance(const moe::ExpertStats& now, double uptime, const ExpertRows& rows = {});

 private:
  struct Past {
    double uptime = 0;
    moe::ExpertStats counts;
    ExpertRows rows;
  };

  // The youngest past that is from then or before; negative: there is none.
  ptrdiff_t PastAt(double uptime) const;

  const double seconds_;
  std::mutex mutex_;
  std::deque<Past> past_;  // oldest first; only the first may be older than all windows
};

// Tokens of generation by expert: all but those of prompts.
std::vector<int64_t> DecodeCounts(const moe::ExpertStats& counts, int layer);

}  // namespace moebius::serve
