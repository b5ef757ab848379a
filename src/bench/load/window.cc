#include "bench/load/window.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/load/figures.h"

namespace moebius::load {
namespace {

constexpr double kBucket = 10;  // seconds

double FirstTokenOrEnd(const RequestRecord& record) {
  return record.events.empty() ? record.end : record.events.front().time;
}

// When all requests sent up to `time` had their first token.
double AllHaveTokens(std::span<const RequestRecord> records, double time) {
  double latest = time;
  for (const RequestRecord& record : records) {
    if (record.sent <= time) latest = std::max(latest, FirstTokenOrEnd(record));
  }
  return latest;
}

std::optional<Window> OpenLoopWindow(std::span<const RequestRecord> records) {
  if (records.empty()) return std::nullopt;
  double first_end = INFINITY;
  double last_sent = 0;
  for (const RequestRecord& record : records) {
    if (record.ok()) first_end = std::min(first_end, record.end);
    last_sent = std::max(last_sent, record.sent);
  }
  if (!std::isfinite(first_end)) return std::nullopt;
  const Window window{AllHaveTokens(records, first_end), last_sent};
  if (window.end <= window.begin) return std::nullopt;
  return window;
}

// Stretches of time in which at least `enough` are in flight; dips up to `dip` are closed.
std::vector<Window> FullStretches(const std::vector<InFlight>& steps, int64_t enough, double dip) {
  std::vector<Window> stretches;
  bool is_full = false;
  for (const InFlight& step : steps) {
    if (step.count >= enough && !is_full) {
      const bool joins = !stretches.empty() && step.time - stretches.back().end <= dip;
      if (!joins) stretches.push_back({step.time, step.time});
      is_full = true;
    } else if (step.count < enough && is_full) {
      stretches.back().end = step.time;
      is_full = false;
    }
  }
  return stretches;
}

double TokensIn(std::span<const RequestRecord> records, const Window& window) {
  double tokens = 0;
  for (const RequestRecord& record : records) {
    if (!record.was_served()) continue;
    for (const TokenEvent& event : record.events) {
      if (window.Has(event.time)) tokens += event.tokens;
    }
  }
  return tokens;
}

// Tokens a second in each whole 10 s of the window.
std::vector<double> Buckets(std::span<const RequestRecord> records, const Window& window) {
  std::vector<double> buckets(static_cast<size_t>(window.seconds() / kBucket));
  for (const RequestRecord& record : records) {
    if (!record.was_served()) continue;
    for (const TokenEvent& event : record.events) {
      if (!window.Has(event.time)) continue;
      const auto at = static_cast<size_t>((event.time - window.begin) / kBucket);
      if (at < buckets.size()) buckets[at] += event.tokens / kBucket;
    }
  }
  return buckets;
}

// Tokens a second of each 10 s, by seconds: [i] is of seconds i to i + 10.
std::vector<double> SlidingRates(const std::vector<double>& seconds) {
  std::vector<double> rates;
  double sum = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    sum += seconds[i];
    if (i >= 10) sum -= seconds[i - 10];
    if (i >= 9) rates.push_back(sum / kBucket);
  }
  return rates;
}

// The first time from which on the rate of the last 10 s stays within 5 % of the mean until W ends.
std::optional<double> WarmUp(const std::vector<double>& rates, const Window& window, double mean) {
  std::optional<double> since;
  for (size_t i = 0; i < rates.size(); ++i) {
    const double now = static_cast<double>(i) + kBucket;
    if (now > window.end) break;
    if (std::abs(rates[i] - mean) > 0.05 * mean) {
      since.reset();
    } else if (!since) {
      since = now;
    }
  }
  return since;
}

void JudgeSteadiness(const WindowOptions& options, SteadyFigures& figures) {
  if (!figures.window) {
    figures.why_not = options.target > 0
                          ? fmt::format(
                                "95 % of {} requests were never in flight with a token "
                                "each",
                                options.target)
                          : "no request was complete before the last was sent";
    return;
  }
  // Without a number of its own, an open loop is asked for a minute, or for as many completions as
  // three times what a burst of ten would need.
  const int64_t needed = 3 * (options.target > 0 ? options.target : 10);
  figures.is_steady = figures.completions >= needed || figures.window->seconds() >= 60;
  if (figures.is_steady) return;
  figures.why_not = fmt::format("{} completions in {:.1f} s, expected {} or a minute",
                                figures.completions, figures.window->seconds(), needed);
}

void JudgeBuckets(SteadyFigures& figures) {
  const std::vector<double>& buckets = figures.buckets_10s;
  const double mean = Mean(buckets);
  if (buckets.size() < 3 || mean <= 0) return;
  figures.variation = StandardDeviation(buckets) / mean;
  figures.variation_verdict = *figures.variation > 0.05 ? Verdict::kFlag : Verdict::kPass;
  std::vector<double> minutes(buckets.size());
  std::vector<double> percent(buckets.size());
  for (size_t i = 0; i < buckets.size(); ++i) {
    minutes[i] = (static_cast<double>(i) + 0.5) * kBucket / 60;
    percent[i] = buckets[i] / mean * 100;
  }
  figures.drift = FitSlope(minutes, percent);
  if (!figures.drift) return;
  const bool is_sure = figures.drift->low > 0 || figures.drift->high < 0;
  figures.drift_verdict =
      std::abs(figures.drift->slope) > 1 && is_sure ? Verdict::kFlag : Verdict::kPass;
}

}  // namespace

const char* VerdictName(Verdict verdict) {
  return verdict == Verdict::kPass ? "pass" : verdict == Verdict::kFlag ? "flag" : "unknown";
}

std::optional<Window> FindWindow(std::span<const RequestRecord> records,
                                 const WindowOptions& options) {
  if (options.target <= 0) return OpenLoopWindow(records);
  const std::vector<InFlight> steps = InFlightOverTime(records);
  const auto enough =
      static_cast<int64_t>(std::ceil(0.95 * static_cast<double>(options.target) - 1e-9));
  const std::vector<Window> stretches = FullStretches(steps, enough, options.dip_seconds);
  if (stretches.empty()) return std::nullopt;
  const double ready = AllHaveTokens(records, stretches.front().begin);
  for (const Window& stretch : stretches) {
    if (stretch.end <= ready) continue;
    return Window{std::max(stretch.begin, ready), stretch.end};
  }
  return std::nullopt;
}

SteadyFigures MeasureWindow(std::span<const RequestRecord> records, const WindowOptions& options) {
  SteadyFigures figures;
  figures.window = FindWindow(records, options);
  const std::vector<double> seconds = TokensPerSecond(records);
  if (!seconds.empty()) figures.peak_1s = *std::max_element(seconds.begin(), seconds.end());
  const std::vector<double> rates = SlidingRates(seconds);
  if (!rates.empty()) figures.peak_10s = *std::max_element(rates.begin(), rates.end());
  if (figures.window) {
    const Window& window = *figures.window;
    int64_t prompt = 0;
    int64_t cached = 0;
    bool knows_cached = true;
    for (const RequestRecord& record : records) {
      if (record.ok() && window.Has(record.end)) ++figures.completions;
      if (!record.was_served() || record.events.empty()) continue;
      if (!window.Has(record.events.front().time)) continue;
      prompt += record.prompt_tokens;
      cached += std::max<int64_t>(record.cached_tokens, 0);
      knows_cached = knows_cached && record.cached_tokens >= 0;
    }
    figures.input_rate = static_cast<double>(prompt) / window.seconds();
    if (knows_cached) {
      figures.uncached_input_rate = static_cast<double>(prompt - cached) / window.seconds();
    }
    figures.output_rate = TokensIn(records, window) / window.seconds();
    figures.total_rate = figures.input_rate + figures.output_rate;
    figures.buckets_10s = Buckets(records, window);
    JudgeBuckets(figures);
    figures.warm_up_seconds = WarmUp(rates, window, figures.output_rate);
    if (figures.peak_10s && *figures.peak_10s > 0) {
      figures.steady_ratio = figures.output_rate / *figures.peak_10s;
      figures.steady_ratio_verdict = *figures.steady_ratio < 0.9 ? Verdict::kFlag : Verdict::kPass;
    }
  }
  JudgeSteadiness(options, figures);
  return figures;
}

}  // namespace moebius::load
