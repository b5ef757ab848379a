// What a server says about itself at /metrics, before a run and after it: the parts of TTFT that a
// client cannot see (M12, M13) and how speculative decoding did. Plain functions, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moebius::load {

// Samples of Prometheus text by name, labels summed; those labelled `position` also by it, as
// "name{position}".
using MetricSums = std::map<std::string, double, std::less<>>;
MetricSums ParseMetrics(std::string_view text);

struct SpeculativeDecoding {
  int64_t num_drafts = 0;
  int64_t draft_tokens = 0;
  int64_t accepted_tokens = 0;
  double acceptance_rate = 0;    // %
  double acceptance_length = 0;  // tokens a step, the certain one included
  std::vector<double> per_position;
};

// Of the requests that ended during the run; mean seconds a request. None: not reported.
struct ServerView {
  std::optional<double> queue;
  std::optional<double> prefill;
  std::optional<double> decode;
  std::optional<double> preemptions;
  std::optional<double> prefix_hit_share;   // of prompt tokens
  std::optional<double> prefill_per_token;  // M13: seconds for a token that was computed
  std::optional<SpeculativeDecoding> speculative;
};
ServerView CompareMetrics(const MetricSums& before, const MetricSums& after);

}  // namespace moebius::load
