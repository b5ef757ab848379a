// The reports that are plain text: the console's, CSV, Markdown.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/load/report_lines.h"
#include "bench/load/rows.h"

namespace moebius::load {
namespace {

// The layout of `vllm bench serve`, which scripts read with regular expressions.
constexpr int kTextWidth = 50;

std::string Heading(const char* title, char fill) {
  const std::string text = fmt::format(" {} ", title);
  const size_t missing = text.size() < kTextWidth ? kTextWidth - text.size() : 0;
  return std::string(missing / 2, fill) + text + std::string(missing - missing / 2, fill) + "\n";
}

std::string MetricHeading(const char* title) {
  const std::string text = title;
  const size_t missing = text.size() < kTextWidth ? kTextWidth - text.size() : 0;
  return std::string(missing / 2, '-') + text + std::string(missing - missing / 2, '-') + "\n";
}

std::string Count(const char* name, int64_t value) {
  return fmt::format("{:<40} {:<10}\n", name, value);
}
std::string Number(const std::string& name, double value) {
  return fmt::format("{:<40} {:<10.2f}\n", name, value);
}

std::string Latencies(const Metric& metric, const ServeBench& bench, const ReportOptions& options) {
  std::vector<double> samples = bench.figures.samples.*metric.samples;
  std::sort(samples.begin(), samples.end());
  std::string out = MetricHeading(metric.title);
  out += Number(fmt::format("Mean {} (ms):", metric.name), Mean(samples) * 1e3);
  out += Number(fmt::format("Median {} (ms):", metric.name), Percentile(samples, 50) * 1e3);
  for (const double percentile : options.percentiles) {
    out += Number(fmt::format("P{} {} (ms):", PercentileWord(percentile), metric.name),
                  Percentile(samples, percentile) * 1e3);
  }
  return out;
}

std::string OurLines(const std::vector<Line>& lines) {
  std::string out;
  for (const Line& line : lines) {
    out += fmt::format("{:<40} {}{}\n", line.name + ":", line.value,
                       line.verdict.empty() ? "" : "  [" + line.verdict + "]");
  }
  return out;
}

}  // namespace

std::string ConsoleReport(const ServeBench& bench, const ReportOptions& options) {
  const Figures& figures = bench.figures;
  std::string out = Heading("Serving Benchmark Result", '=');
  out += Count("Successful requests:", figures.completed);
  out += Count("Failed requests:", figures.failed);
  if (bench.run.was_stopped) {
    out += Count("Cancelled requests (interrupted):", figures.cancelled);
  }
  if (options.max_concurrency)
    out += Count("Maximum request concurrency:", *options.max_concurrency);
  if (!std::isinf(options.arrivals.request_rate)) {
    out += Number("Request rate configured (RPS):", options.arrivals.request_rate);
  }
  out += Number("Benchmark duration (s):", figures.duration);
  out += Count("Total input tokens:", figures.input_tokens);
  out += Count("Total generated tokens:", figures.output_tokens);
  out += Number("Request throughput (req/s):", figures.request_rate);
  if (options.limits.any()) out += Number("Request goodput (req/s):", figures.goodput);
  out += Number("Output token throughput (tok/s):", figures.output_rate);
  out += Number("Peak output token throughput (tok/s):", figures.max_output_tokens_per_s);
  out += Number("Peak concurrent requests:", static_cast<double>(figures.max_concurrent_requests));
  out += Number("Total token throughput (tok/s):", figures.total_rate);
  if (bench.probe) {
    out += MetricHeading("Probe Requests");
    out += Count("Probe requests completed:", bench.probe->completed);
    out += Count("Probe requests failed:", bench.probe->failed);
    out += Number("Median probe E2EL (ms):", bench.probe->e2el.p50 * 1e3);
    out += Number("P99 probe E2EL (ms):", bench.probe->e2el.p99 * 1e3);
    out += Number("Max probe E2EL (ms):", bench.probe->e2el.max * 1e3);
  }
  for (const Metric& metric : SelectedMetrics(options)) out += Latencies(metric, bench, options);
  if (bench.server.speculative) {
    const SpeculativeDecoding& speculative = *bench.server.speculative;
    out += MetricHeading("Speculative Decoding");
    out += Number("Acceptance rate (%):", speculative.acceptance_rate);
    out += Number("Acceptance length:", speculative.acceptance_length);
    out += Count("Drafts:", speculative.num_drafts);
    out += Count("Draft tokens:", speculative.draft_tokens);
    out += Count("Accepted tokens:", speculative.accepted_tokens);
  }
  out += std::string(kTextWidth, '=') + "\n";
  out += Heading("Steady Window", '-') + OurLines(SteadyLines(bench));
  out += Heading("Whole Run", '-') + OurLines(RunLines(bench));
  return out;
}

std::string CsvReport(const ServeBench& bench, const ReportOptions& options) {
  std::string header;
  std::string row;
  for (const auto& [name, value] : FlatFigures(bench, options)) {
    header += (header.empty() ? "" : ",") + CsvField(name);
    row += (header.size() == name.size() ? "" : ",") + CsvField(value);
  }
  return header + "\n" + row + "\n";
}

std::string MarkdownReport(const ServeBench& bench, const ReportOptions& options) {
  const Figures& figures = bench.figures;
  std::string out = fmt::format("# {} on {}\n\n`{}`\n\n", bench.model, options.backend,
                                options.command.empty() ? "moebius bench serve" : options.command);
  out += "| figure | value |\n| --- | ---: |\n";
  const auto add = [&](const char* name, const std::string& value) {
    out += fmt::format("| {} | {} |\n", name, value);
  };
  add("completed, failed", fmt::format("{}, {}", figures.completed, figures.failed));
  if (bench.run.was_stopped) add("interrupted, cancelled", fmt::format("{}", figures.cancelled));
  add("duration", fmt::format("{:.2f} s", figures.duration));
  add("requests/s", fmt::format("{:.2f}", figures.request_rate));
  if (options.limits.any()) add("goodput, requests/s", fmt::format("{:.2f}", figures.goodput));
  add("output tokens/s", fmt::format("{:.2f}", figures.output_rate));
  add("all tokens/s", fmt::format("{:.2f}", figures.total_rate));
  out +=
      "\n| ms | n | mean | p50 | p90 | p95 | p99 | max |\n"
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Metric& metric : Metrics()) {
    const Distribution d = Describe(figures.samples.*metric.samples);
    out += fmt::format("| {} | {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |\n",
                       metric.name, d.n, d.mean * 1e3, d.p50 * 1e3, d.p90 * 1e3, d.p95 * 1e3,
                       d.p99 * 1e3, d.max * 1e3);
  }
  const auto table = [&](const char* title, const std::vector<Line>& lines) {
    out += fmt::format("\n| {} | value | verdict |\n| --- | --- | --- |\n", title);
    for (const Line& line : lines) {
      out += fmt::format("| {} | {} | {} |\n", line.name, line.value, line.verdict);
    }
  };
  table("steady window", SteadyLines(bench));
  table("whole run", RunLines(bench));
  for (const std::string& warning : bench.warnings) out += fmt::format("\nWarning: {}\n", warning);
  return out;
}

}  // namespace moebius::load
