#include "bench/load/report_lines.h"

#include <fmt/format.h>

#include <algorithm>

namespace moebius::load {
namespace {

constexpr const char* kUnknown = "-";

std::string Rate(const std::optional<double>& rate) {
  return rate ? fmt::format("{:.2f} tok/s", *rate) : kUnknown;
}

std::string Milliseconds(const std::optional<double>& seconds) {
  return seconds ? fmt::format("{:.2f} ms", *seconds * 1e3) : kUnknown;
}

std::string VerdictOf(Verdict verdict, const SteadyFigures& steady) {
  if (!steady.is_steady && verdict == Verdict::kPass) return "not steady";
  return VerdictName(verdict);
}

std::string FailuresOf(const Figures& figures) {
  std::string text;
  for (int i = 1; i < kNumOutcomes; ++i) {
    const int64_t count = figures.by_outcome[static_cast<size_t>(i)];
    if (count == 0 || static_cast<Outcome>(i) == Outcome::kCancelled) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count,
                        OutcomeName(static_cast<Outcome>(i)));
  }
  return text.empty() ? "none" : text;
}

}  // namespace

const std::vector<Metric>& Metrics() {
  static const std::vector<Metric> metrics = {
      {"ttft", "TTFT", "Time to First Token", &Samples::ttft},
      {"tpot", "TPOT", "Time per Output Token (excl. 1st token)", &Samples::tpot},
      {"itl", "ITL", "Inter-token Latency", &Samples::itl},
      {"e2el", "E2EL", "End-to-end Latency", &Samples::e2el},
      {"client_queue_time", "Client Queue Time", "Client-side Queueing",
       &Samples::client_queue_time},
      {"e2el_including_client_queue", "E2EL incl. Client Queue",
       "Queue-inclusive End-to-end Latency", &Samples::e2el_with_queue},
  };
  return metrics;
}

std::vector<std::string> MetricNames() {
  std::vector<std::string> names;
  for (const Metric& metric : Metrics()) names.emplace_back(metric.key);
  return names;
}

std::vector<Metric> SelectedMetrics(const ReportOptions& options) {
  std::vector<Metric> selected;
  for (const Metric& metric : Metrics()) {
    if (std::ranges::count(options.metrics, metric.key) > 0) selected.push_back(metric);
  }
  return selected;
}

std::string PercentileWord(double percentile) { return fmt::format("{:g}", percentile); }

std::vector<Line> SteadyLines(const ServeBench& bench) {
  const SteadyFigures& steady = bench.steady;
  std::vector<Line> lines;
  if (!steady.window) {
    lines.push_back({"steady window W", "none: " + steady.why_not, "not steady"});
    lines.push_back({"M4 peak output, best second", Rate(steady.peak_1s), ""});
    return lines;
  }
  const Window& window = *steady.window;
  lines.push_back({"steady window W",
                   fmt::format("{:.2f} s to {:.2f} s ({})", window.begin, window.end,
                               steady.is_steady ? fmt::format("{:.2f} s, {} completions",
                                                              window.seconds(), steady.completions)
                                                : steady.why_not),
                   steady.is_steady ? "pass" : "not steady"});
  lines.push_back({"M1 input in W", Rate(steady.input_rate), ""});
  lines.push_back({"M1 input in W, not cached", Rate(steady.uncached_input_rate), ""});
  lines.push_back({"M2 output in W", Rate(steady.output_rate), ""});
  lines.push_back({"M3 total in W", Rate(steady.total_rate), ""});
  lines.push_back({"M4 peak output, best 10 s", Rate(steady.peak_10s), ""});
  lines.push_back({"M4 peak output, best second", Rate(steady.peak_1s), ""});
  lines.push_back({"M5 steady by peak",
                   steady.steady_ratio ? fmt::format("{:.3f}", *steady.steady_ratio) : kUnknown,
                   VerdictOf(steady.steady_ratio_verdict, steady)});
  lines.push_back({"M6 drift",
                   steady.drift
                       ? fmt::format("{:+.2f} %/min (95 % CI {:+.2f} to {:+.2f})",
                                     steady.drift->slope, steady.drift->low, steady.drift->high)
                       : kUnknown,
                   VerdictOf(steady.drift_verdict, steady)});
  lines.push_back(
      {"M7 warm-up",
       steady.warm_up_seconds ? fmt::format("{:.0f} s", *steady.warm_up_seconds) : kUnknown, ""});
  lines.push_back({"M8 variation of 10 s",
                   steady.variation ? fmt::format("{:.1f} %", *steady.variation * 100) : kUnknown,
                   VerdictOf(steady.variation_verdict, steady)});
  return lines;
}

std::vector<Line> RunLines(const ServeBench& bench) {
  const Figures& figures = bench.figures;
  const auto median = [](const std::vector<double>& samples) {
    return samples.empty() ? std::nullopt : std::optional<double>(Describe(samples).p50);
  };
  std::vector<Line> lines;
  if (bench.run.was_stopped) {
    lines.push_back(
        {"interrupted", fmt::format("{} requests cancelled", figures.cancelled), "flag"});
  }
  lines.push_back({"failures", FailuresOf(figures), ""});
  const auto tpot = median(figures.samples.tpot);
  lines.push_back({"M11 interactivity, 1 / median TPOT",
                   tpot && *tpot > 0 ? fmt::format("{:.2f} tok/s a user", 1 / *tpot) : kUnknown,
                   ""});
  lines.push_back(
      {"M15 ITL by token, median", Milliseconds(median(figures.samples.itl_per_token)), ""});
  lines.push_back(
      {"M17 first to second event, median", Milliseconds(median(figures.samples.ttst)), ""});
  lines.push_back({"M18 stalls (gaps above 5 medians)",
                   fmt::format("{} ({:.2f} %), longest {:.1f} ms", figures.stalls.count,
                               figures.stalls.share * 100, figures.stalls.longest * 1e3),
                   ""});
  if (figures.reasoning_tokens > 0) {
    lines.push_back(
        {"reasoning tokens, counted as output", fmt::format("{}", figures.reasoning_tokens), ""});
  }
  if (figures.num_without_usage > 0) {
    lines.push_back({"answers without usage (chunks counted)",
                     fmt::format("{}", figures.num_without_usage), "flag"});
  }
  if (figures.num_inexact > 0) {
    lines.push_back({"answers with fewer chunks than tokens (spread)",
                     fmt::format("{}", figures.num_inexact), ""});
  }
  if (figures.over_saturated) {
    lines.push_back({"over-saturated: in-flight and TTFT grew", "yes", "flag"});
  }
  const ServerView& server = bench.server;
  if (server.queue)
    lines.push_back({"M12 queued at the server, mean", Milliseconds(server.queue), ""});
  if (server.prefill) {
    lines.push_back({"M12 prefill at the server, mean", Milliseconds(server.prefill), ""});
  }
  if (server.prefill_per_token) {
    lines.push_back({"M13 prefill of a computed token",
                     fmt::format("{:.1f} us", *server.prefill_per_token * 1e6), ""});
  }
  if (server.prefix_hit_share) {
    lines.push_back({"prompt tokens from the prefix cache",
                     fmt::format("{:.1f} %", *server.prefix_hit_share * 100), ""});
  }
  const auto lateness = Describe(figures.samples.lateness);
  double events = 0;
  for (const RequestRecord& record : bench.run.records) {
    events += static_cast<double>(record.events.size());
  }
  lines.push_back(
      {"generator",
       fmt::format("sent late p50 {:.2f} ms, p99 {:.2f} ms; CPU {:.0f} % of a core, {:.1f} us an "
                   "event",
                   lateness.p50 * 1e3, lateness.p99 * 1e3,
                   bench.run.duration > 0 ? bench.run.cpu_seconds / bench.run.duration * 100 : 0,
                   events > 0 ? bench.run.cpu_seconds / events * 1e6 : 0),
       GeneratorWarnings(bench.run).empty() ? "pass" : "flag"});
  return lines;
}

std::vector<std::pair<std::string, std::string>> FlatFigures(const ServeBench& bench,
                                                             const ReportOptions& options) {
  const Figures& figures = bench.figures;
  const SteadyFigures& steady = bench.steady;
  const auto number = [](double value) { return fmt::format("{:.6g}", value); };
  const auto maybe = [&](const std::optional<double>& value) {
    return value ? number(*value) : std::string();
  };
  std::vector<std::pair<std::string, std::string>> row = {
      {"date", options.date},
      {"backend", options.backend},
      {"model_id", bench.model},
      {"request_rate", fmt::format("{}", options.arrivals.request_rate)},
      {"max_concurrency",
       options.max_concurrency ? fmt::format("{}", *options.max_concurrency) : ""},
      {"duration_s", number(figures.duration)},
      {"completed", fmt::format("{}", figures.completed)},
      {"failed", fmt::format("{}", figures.failed)},
      {"cancelled", fmt::format("{}", figures.cancelled)},
      {"interrupted", bench.run.was_stopped ? "yes" : "no"},
      {"total_input_tokens", fmt::format("{}", figures.input_tokens)},
      {"total_output_tokens", fmt::format("{}", figures.output_tokens)},
      {"request_throughput", number(figures.request_rate)},
      {"request_goodput", options.limits.any() ? number(figures.goodput) : ""},
      {"output_throughput", number(figures.output_rate)},
      {"total_token_throughput", number(figures.total_rate)},
      {"steady", steady.is_steady ? "yes" : "not steady"},
      {"steady_output_throughput", steady.window ? number(steady.output_rate) : ""},
      {"steady_total_throughput", steady.window ? number(steady.total_rate) : ""},
      {"peak_10s_output_throughput", maybe(steady.peak_10s)},
      {"peak_1s_output_throughput", number(steady.peak_1s)},
      {"steady_ratio", maybe(steady.steady_ratio)},
      {"drift_percent_per_min", steady.drift ? number(steady.drift->slope) : ""},
      {"warm_up_s", maybe(steady.warm_up_seconds)},
      {"variation", maybe(steady.variation)},
  };
  for (const Metric& metric : Metrics()) {
    const Distribution d = Describe(figures.samples.*metric.samples);
    const auto add = [&](const char* what, double seconds) {
      row.emplace_back(fmt::format("{}_{}_ms", what, metric.key),
                       d.n > 0 ? number(seconds * 1e3) : "");
    };
    add("mean", d.mean);
    add("p50", d.p50);
    add("p90", d.p90);
    add("p95", d.p95);
    add("p99", d.p99);
    add("max", d.max);
  }
  return row;
}

}  // namespace moebius::load
