// The report as one page: no script, no font, no picture from anywhere.
#include <fmt/format.h>

#include <algorithm>

#include "bench/load/report_lines.h"
#include "bench/load/svg.h"

namespace moebius::load {
namespace {

std::string Throughput(const ServeBench& bench) {
  Plot plot("Output tokens a second (shaded: the steady window)", "seconds", "tokens/s");
  const std::vector<double> seconds = TokensPerSecond(bench.run.records);
  Points each;
  Points mean;
  double sum = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    each.emplace_back(static_cast<double>(i) + 0.5, seconds[i]);
    sum += seconds[i] - (i >= 10 ? seconds[i - 10] : 0);
    if (i >= 9) mean.emplace_back(static_cast<double>(i) + 1, sum / 10);
  }
  plot.AddLine("each second", std::move(each));
  if (!mean.empty()) plot.AddLine("last 10 s", std::move(mean));
  if (bench.steady.window) plot.SetBand(bench.steady.window->begin, bench.steady.window->end);
  return plot.Render();
}

std::string Concurrency(const ServeBench& bench) {
  // Means over short stretches: where one request follows another, the count itself is a comb.
  constexpr int kStretches = 300;
  Plot plot("Requests in flight", "seconds", "requests");
  const std::vector<InFlight> steps = InFlightOverTime(bench.run.records);
  const double end = steps.empty() ? 0 : steps.back().time;
  const double width = end / kStretches;
  std::vector<double> sums(kStretches);
  size_t stretch = 0;  // where the step begins: steps follow one another
  for (size_t i = 0; i + 1 < steps.size() && width > 0; ++i) {
    for (;; ++stretch) {
      const double from = std::max(steps[i].time, static_cast<double>(stretch) * width);
      const double limit = static_cast<double>(stretch + 1) * width;
      const double to = std::min(steps[i + 1].time, limit);
      if (to > from) sums[stretch] += (to - from) * static_cast<double>(steps[i].count);
      if (steps[i + 1].time <= limit || stretch + 1 == sums.size()) break;
    }
  }
  Points points;
  for (int i = 0; i < kStretches && width > 0; ++i) {
    points.emplace_back((i + 0.5) * width, sums[static_cast<size_t>(i)] / width);
  }
  plot.AddLine("", std::move(points));
  if (bench.steady.window) plot.SetBand(bench.steady.window->begin, bench.steady.window->end);
  return plot.Render();
}

std::string Histogram(const char* title, std::vector<double> samples) {
  for (double& sample : samples) sample *= 1e3;
  Bins bins = BinsOf(std::move(samples), 50);
  Plot plot(title, "milliseconds", "count");
  plot.AddBars("", std::move(bins.points), bins.width);
  return plot.Render();
}

std::string Table(const char* title, const std::vector<Line>& lines) {
  std::string out = fmt::format("<h2>{}</h2>\n<div class=\"wide\"><table>\n", title);
  for (const Line& line : lines) {
    out += fmt::format(
        "<tr><td class=\"left\">{}</td><td class=\"left\">{}</td><td class=\"{}\">{}</td></tr>\n",
        EscapeXml(line.name), EscapeXml(line.value),
        line.verdict == "pass" || line.verdict == "flag" ? line.verdict : "soft", line.verdict);
  }
  return out + "</table></div>\n";
}

std::string Latencies(const ServeBench& bench) {
  std::string out =
      "<h2>Latencies, ms</h2>\n<div class=\"wide\"><table>\n<tr><th class=\"left\"></th><th>n</th>"
      "<th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>max</th></tr>\n";
  for (const Metric& metric : Metrics()) {
    const Distribution d = Describe(bench.figures.samples.*metric.samples);
    out += fmt::format("<tr><td class=\"left\">{}</td><td>{}</td>", metric.name, d.n);
    for (const double value : {d.mean, d.p50, d.p90, d.p95, d.p99, d.max}) {
      out += fmt::format("<td>{:.2f}</td>", value * 1e3);
    }
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

}  // namespace

std::string HtmlReport(const ServeBench& bench, const ReportOptions& options) {
  const Figures& figures = bench.figures;
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}: benchmark</title>\n"
      "<style>{1}</style></head><body>\n<h1>{0}</h1>\n"
      "<p class=\"head\">{2}{3} requests completed, {4} failed, {5:.2f} s; {6:.2f} requests/s, "
      "{7:.2f} output tokens/s, {8:.2f} tokens/s in all. {9}</p>\n",
      EscapeXml(bench.model), PageStyle(),
      bench.run.was_stopped ? fmt::format("Interrupted, {} cancelled: ", figures.cancelled) : "",
      figures.completed, figures.failed, figures.duration, figures.request_rate,
      figures.output_rate, figures.total_rate, EscapeXml(options.date));
  for (const std::string& warning : bench.warnings) {
    out += fmt::format("<p><b>Warning:</b> {}</p>\n", EscapeXml(warning));
  }
  out += Throughput(bench) + Concurrency(bench);
  out += Histogram("Time to first token", figures.samples.ttft);
  out += Histogram("Inter-token latency", figures.samples.itl);
  out += Table("Steady window", SteadyLines(bench)) + Latencies(bench) +
         Table("Whole run", RunLines(bench));
  if (!options.command.empty()) out += fmt::format("<pre>{}</pre>\n", EscapeXml(options.command));
  return out + "</body></html>\n";
}

}  // namespace moebius::load
