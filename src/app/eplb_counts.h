// What a server answers to GET /eplb/counts: tokens of every expert since its start, by rank and
// phase. Pure functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "plan/balance/statistics_folder.h"

namespace moebius::app {

enum class CountedPhase { kAll, kDecode, kPrefill };

struct ServerCounts {
  plan::StatisticsMeta meta;
  std::vector<int> layers;               // the model's indices
  std::vector<plan::LayerCounts> ranks;  // totals of the phase
};

// {"num_experts": E, "num_experts_per_token": k, "layers": [...], "ranks": [{"decode": [[per
// expert] per layer], "prefill": [[...]]}, ...]}. kCorrupt names what is not so.
Result<ServerCounts> ParseServerCounts(const std::string& body, CountedPhase phase);

// Intervals between answers as the iterations of a recording, a rank each.
class CountRecorder {
 public:
  explicit CountRecorder(ServerCounts first);

  // An iteration more, unless nothing was counted since the answer before. kUnavailable: another
  // server's counts, or they went back (it was started anew).
  Status Add(ServerCounts counts);

  const std::vector<plan::ExpertStatistics>& ranks() const { return ranks_; }
  size_t num_iterations() const { return ranks_.front().iterations.size(); }
  int64_t num_tokens() const { return num_tokens_; }  // x experts a token x layers
  size_t num_bytes() const;                           // of all iterations

 private:
  ServerCounts last_;
  std::vector<plan::ExpertStatistics> ranks_;
  int64_t num_tokens_ = 0;
};

}  // namespace moebius::app
