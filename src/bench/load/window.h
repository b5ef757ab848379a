// The steady window W and what is measured inside it (M1 to M8 of docs/benchmarking.md). A figure
// over a whole run mixes filling, serving and emptying; W holds only the serving. Plain functions,
// any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/load/record.h"
#include "bench/load/stats.h"

namespace moebius::load {

struct WindowOptions {
  // Requests meant to be in flight: --max-concurrency, or all of a burst. 0: an open loop with a
  // rate, which has no such number; then W goes from the first completion (and the first token of
  // all that were sent before it) to the last sending.
  int64_t target = 0;
  // In a closed loop one request follows another only after the generator has seen its end: a dip
  // this short does not end W.
  double dip_seconds = 0.05;
};

struct Window {
  double begin = 0;
  double end = 0;
  double seconds() const { return end - begin; }
  bool Has(double time) const { return time >= begin && time < end; }
};

// Starts when at least 95 % of the target are in flight and every request sent until then has a
// token (or failed), and ends at the first drop below 95 %. None: that never was.
std::optional<Window> FindWindow(std::span<const RequestRecord> records,
                                 const WindowOptions& options);

enum class Verdict { kPass, kFlag, kUnknown };  // kUnknown: the window is too short to say
const char* VerdictName(Verdict verdict);

struct SteadyFigures {
  std::optional<Window> window;
  bool is_steady = false;
  std::string why_not;      // not steady: what is missing
  int64_t completions = 0;  // inside W
  // Tokens a second, of requests that did not fail. M1: of prompts whose first token falls in W;
  // M2: tokens that arrive in W.
  double input_rate = 0;
  std::optional<double> uncached_input_rate;  // where the server reports cached tokens
  double output_rate = 0;
  double total_rate = 0;  // M3
  // M4, over the whole run: the best 10 s (none in a shorter run) and the best second.
  std::optional<double> peak_10s;
  double peak_1s = 0;
  std::optional<double> steady_ratio;  // M5: M2 by the 10 s peak; flagged below 0.9
  Verdict steady_ratio_verdict = Verdict::kUnknown;
  std::optional<Slope> drift;  // M6: % of the mean a minute; flagged above 1 if it is no chance
  Verdict drift_verdict = Verdict::kUnknown;
  std::optional<double> warm_up_seconds;  // M7
  std::optional<double> variation;        // M8: of 10 s buckets; flagged above 0.05
  Verdict variation_verdict = Verdict::kUnknown;
  std::vector<double> buckets_10s;  // tokens a second in W
};
SteadyFigures MeasureWindow(std::span<const RequestRecord> records, const WindowOptions& options);

}  // namespace moebius::load
