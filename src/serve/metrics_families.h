// The families of /metrics, by whom they are about. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "base/metrics_text.h"
#include "serve/expert_balance.h"
#include "serve/metrics_experts.h"
#include "serve/server_stats.h"

namespace moebius::serve {

// Names and meanings that dashboards and clients know from vLLM.
void AppendVllmMetrics(const Snapshot& snapshot, MetricsText& text);
// What those have no name for.
void AppendMoebiusMetrics(const Snapshot& snapshot, const std::string& version, MetricsText& text);
// How tokens fall on each layer's experts; nothing of a dense model.
void AppendExpertMetrics(const Snapshot& snapshot, const ExpertLoad& window,
                         const std::vector<LayerBalance>& balance, MetricsText& text);
// Of each rank.
void AppendRankMetrics(const Snapshot& snapshot, MetricsText& text);
// How the work of experts is spread over ranks; nothing where whole experts are not.
void AppendBalanceMetrics(const Snapshot& snapshot, const ExpertLoad& window,
                          const std::vector<LayerBalance>& balance, MetricsText& text);
// http_...: as the usual HTTP instrumentation of Python servers names it. No common labels.
void AppendHttpMetrics(const ServerStats& server, MetricsText& text);
// process_...: of this process, from /proc. What cannot be read is absent. No common labels.
void AppendProcessMetrics(MetricsText& text);

}  // namespace moebius::serve
