// What several reports say alike. Used by report_*.cc.
#pragma once

#include "bench/load/report.h"

namespace moebius::load {

// A latency that can be reported with percentiles.
struct Metric {
  const char* key;    // "ttft"
  const char* name;   // "TTFT"
  const char* title;  // "Time to First Token"
  const std::vector<double> Samples::* samples;
};
const std::vector<Metric>& Metrics();
// Those of options.metrics, in the order of Metrics().
std::vector<Metric> SelectedMetrics(const ReportOptions& options);
std::string PercentileWord(double percentile);  // 99 -> "99", 99.9 -> "99.9"

// A figure beyond vLLM's: what it is, its value with unit, and the verdict or an empty text.
struct Line {
  std::string name;
  std::string value;
  std::string verdict;
};
// The steady window's, then the whole run's, the generator's and the server's.
std::vector<Line> SteadyLines(const ServeBench& bench);
std::vector<Line> RunLines(const ServeBench& bench);

// Figures by name, for a row of a table. Numbers without units (seconds are _s, milliseconds _ms);
// empty: not known.
std::vector<std::pair<std::string, std::string>> FlatFigures(const ServeBench& bench,
                                                             const ReportOptions& options);

}  // namespace moebius::load
