#include "serve/metrics.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/metrics_text.h"
#include "serve/metrics_families.h"

namespace moebius::serve {

Metrics::Metrics(std::string version)
    : version_(std::move(version)),
      start_id_(fmt::format("{:x}-{:x}", ::getpid(),
                            std::chrono::system_clock::now().time_since_epoch().count())) {}

std::string Metrics::Text(const Snapshot& snapshot) {
  const ExpertLoad window = window_.Advance(snapshot.experts, snapshot.uptime_seconds);
  MetricsText text({{"model_name", snapshot.model_name}, {"engine", "0"}});
  AppendVllmMetrics(snapshot, text);
  AppendMoebiusMetrics(snapshot, window, version_, text);
  AppendRankMetrics(snapshot, window, text);
  text.DropCommonLabels();
  AppendHttpMetrics(snapshot.server, text);
  AppendProcessMetrics(text);
  return text.Take();
}

}  // namespace moebius::serve
