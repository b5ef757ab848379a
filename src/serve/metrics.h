// What a server says about itself, in words that others read: Prometheus's text for /metrics and
// JSON for the page. One for each server; any thread may call it.
#pragma once

#include <string>
#include <string_view>

#include "serve/metrics_experts.h"
#include "serve/server_stats.h"

namespace moebius::serve {

class Metrics {
 public:
  explicit Metrics(std::string version);

  // /metrics: text format 0.0.4 (Content-Type: kMetricsContentType). Every name: docs/metrics.md.
  std::string Text(const Snapshot& snapshot);

  // /moebius/stats: what the page draws. Two numbers for every expert of every layer are most of
  // it, and can be left out.
  std::string Stats(const Snapshot& snapshot, bool with_experts);

 private:
  const std::string version_;
  const std::string start_id_;  // another one after a restart: counters begin anew
  ExpertWindow window_;
};

constexpr char kMetricsContentType[] = "text/plain; version=0.0.4; charset=utf-8";

// GET / : the page, one HTML document (src/serve/page/index.html, compiled in).
std::string_view PageHtml();

}  // namespace moebius::serve
