// Finds the rank that the others wait for: it is busy while they stand still. That is no failure,
// only worth a line in the log. Pure but for what it remembers; one thread.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/signal.h"
#include "engine/rank_load.h"

namespace moebius::rank {

struct SlowRankOptions {
  std::chrono::nanoseconds window = std::chrono::seconds(5);
  // Before the same rank is named again.
  std::chrono::nanoseconds pause = std::chrono::minutes(1);
  // It is slow if it is busy `factor` times as long as any other, and the others wait that share of
  // the window longer than it does.
  double factor = 2;
  double share = 0.2;
};

// Seconds are those of the window.
struct SlowRank {
  engine::RankLoad load;  // what it did in the window
  double window = 0;
  double others_waited = 0;  // on average
  int64_t rows = 0;          // of the one among the others that had most

  // "rank 3 (data-parallel rank 3) holds up the others: of the last 5.0 s ..."
  std::string Describe() const;
};

class SlowRanks {
 public:
  // together: data-parallel ranks run their steps together, so that all of them wait for the
  // slowest; else only those of one data-parallel rank do.
  explicit SlowRanks(bool together, const SlowRankOptions& options = {})
      : together_(together), options_(options) {}

  // Looks once a window: calls in between give none. loads: since the start, by rank.
  std::vector<SlowRank> Look(std::span<const engine::RankLoad> loads, comm::Clock::time_point now);

 private:
  std::optional<SlowRank> FindIn(std::span<const engine::RankLoad> group, double window) const;

  const bool together_;
  const SlowRankOptions options_;
  std::vector<engine::RankLoad> last_;
  comm::Clock::time_point last_look_;
  std::vector<comm::Clock::time_point> named_;  // by rank; the beginning of time: never
};

}  // namespace moebius::rank
