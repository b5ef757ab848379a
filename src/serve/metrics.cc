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
  const ExpertLoad window =
      window_.Advance(snapshot.experts, snapshot.uptime_seconds, RowsOf(snapshot.ranks));
  const std::vector<LayerBalance> balance =
      BalanceOf(window, snapshot.placement.slots, NumExpertRanks(snapshot.ranks));
  MetricsText text({{"model_name", snapshot.model_name}, {"engine", "0"}});
  AppendVllmMetrics(snapshot, text);
  AppendMoebiusMetrics(snapshot, version_, text);
  AppendExpertMetrics(snapshot, window, balance, text);
  AppendRankMetrics(snapshot, text);
  AppendBalanceMetrics(snapshot, window, balance, text);
  text.DropCommonLabels();
  AppendHttpMetrics(snapshot.server, text);
  AppendProcessMetrics(text);
  return text.Take();
}

}  // namespace moebius::serve
