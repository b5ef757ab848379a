// The families of /metrics, by whom they are about. Pure functions.
#pragma once

#include <string>

#include "base/metrics_text.h"
#include "serve/metrics_experts.h"
#include "serve/server_stats.h"

namespace moebius::serve {

// Names and meanings that dashboards and clients know from vLLM.
void AppendVllmMetrics(const Snapshot& snapshot, MetricsText& text);
// What those have no name for.
void AppendMoebiusMetrics(const Snapshot& snapshot, const ExpertLoad& window,
                          const std::string& version, MetricsText& text);
// Of each rank, and of how experts' work is spread over them.
void AppendRankMetrics(const Snapshot& snapshot, const ExpertLoad& window, MetricsText& text);
// http_...: as the usual HTTP instrumentation of Python servers names it. No common labels.
void AppendHttpMetrics(const ServerStats& server, MetricsText& text);
// process_...: of this process, from /proc. What cannot be read is absent. No common labels.
void AppendProcessMetrics(MetricsText& text);

}  // namespace moebius::serve
