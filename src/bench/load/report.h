// A benchmark as people and tools read it: the console, JSON with the keys of `vllm bench serve`,
// CSV, Markdown, one HTML page. Plain functions, any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/load/serve_bench.h"

namespace moebius::load {

struct ReportOptions {
  std::string date;     // 20260131-235959
  std::string command;  // that made it
  std::string backend;
  std::string label;  // empty: none
  std::vector<std::pair<std::string, std::string>> metadata;
  ArrivalOptions arrivals;
  std::optional<int64_t> max_concurrency;
  std::vector<std::string> metrics = {"ttft", "tpot", "itl"};  // which get percentiles
  std::vector<double> percentiles = {99};
  Limits limits;
  bool detailed = false;  // JSON: the numbers of every request
};

// Names that --percentile-metrics knows.
std::vector<std::string> MetricNames();

std::string ConsoleReport(const ServeBench& bench, const ReportOptions& options);
std::string JsonReport(const ServeBench& bench, const ReportOptions& options);
std::string CsvReport(const ServeBench& bench, const ReportOptions& options);  // a header, a row
std::string MarkdownReport(const ServeBench& bench, const ReportOptions& options);
std::string HtmlReport(const ServeBench& bench, const ReportOptions& options);

}  // namespace moebius::load
