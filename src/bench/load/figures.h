// From the records of a run to the figures over all of it: what `vllm bench serve` reports, and the
// latencies M9 and M11 to M18 of docs/benchmarking.md. Failed requests count by class, those that
// an interrupt ended apart; both stay out of every latency. Plain functions, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "bench/load/record.h"
#include "bench/load/stats.h"

namespace moebius::load {

// Milliseconds that a good request keeps below; none: does not matter.
struct Limits {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2el_ms;
  bool any() const { return ttft_ms || tpot_ms || e2el_ms; }
};

// Whether a request that succeeded meets them. One with a single token has a TPOT of 0.
bool IsGood(const RequestRecord& record, const Limits& limits);

// Seconds, one sample as said.
struct Samples {
  std::vector<double> ttft;               // a request
  std::vector<double> tpot;               // a request of two tokens or more
  std::vector<double> itl;                // a gap between events
  std::vector<double> itl_per_token;      // the same by the tokens of its event, once for each
  std::vector<double> e2el;               // a request, to its last token
  std::vector<double> ttst;               // a request of two events: from the first to the second
  std::vector<double> client_queue_time;  // a request: from its schedule to its sending
  std::vector<double> e2el_with_queue;
  std::vector<double> lateness;  // every request sent, failed ones too
};

// Gaps above five times the median gap.
struct Stalls {
  double threshold = 0;  // seconds
  int64_t count = 0;
  double share = 0;    // of all gaps
  double longest = 0;  // seconds
};
Stalls FindStalls(const std::vector<double>& itl);

struct Figures {
  double duration = 0;  // seconds, as the run says
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;  // by us: the run was interrupted
  std::array<int64_t, kNumOutcomes> by_outcome{};
  int64_t input_tokens = 0;
  int64_t cached_tokens = 0;  // of these
  bool knows_cached = false;  // the server said so of every request
  int64_t output_tokens = 0;
  int64_t reasoning_tokens = 0;  // of these
  int64_t num_without_usage = 0;
  int64_t num_inexact = 0;  // of several tokens an event, spread
  double request_rate = 0;
  double goodput = 0;  // requests a second that meet the limits
  double output_rate = 0;
  double total_rate = 0;
  double max_output_tokens_per_s = 0;  // tokens in the best second
  int64_t max_concurrent_requests = 0;
  Samples samples;
  Stalls stalls;
  // In-flight requests and TTFT both grew over the run, with 95 % confidence and by more than half
  // their mean: an open loop above what the server can do, whose figures depend on when it ended.
  bool over_saturated = false;
};
// `open_loop`: whether over-saturation means anything.
Figures MeasureRun(std::span<const RequestRecord> records, double duration, const Limits& limits,
                   bool open_loop);

// Requests in flight as a step function: from `time` on there are `count`.
struct InFlight {
  double time = 0;
  int64_t count = 0;
};
std::vector<InFlight> InFlightOverTime(std::span<const RequestRecord> records);

// Tokens that arrived in each second from 0 on, failed requests' too: they were served.
std::vector<double> TokensPerSecond(std::span<const RequestRecord> records);

}  // namespace moebius::load
