#include <array>
#include <string>

#include "serve/metrics_families.h"

namespace moebius::serve {

void AppendHttpMetrics(const ServerStats& server, MetricsText& text) {
  text.Counter("http_requests_total",
               "Requests answered, by endpoint and class of status (a client that left before its "
               "answer began is 4xx, one that left within a stream has its 2xx).");
  for (const EndpointStats& endpoint : server.endpoints) {
    std::array<int64_t, 10> by_class{};
    for (const auto& [status, number] : endpoint.num_by_status) {
      const int hundreds = status / 100;
      by_class[hundreds >= 1 && hundreds <= 9 ? hundreds : 0] += number;
    }
    for (size_t hundreds = 1; hundreds < by_class.size(); ++hundreds) {
      if (by_class[hundreds] == 0) continue;
      const std::string status = std::to_string(hundreds) + "xx";
      text.Sample(by_class[hundreds],
                  {{"handler", endpoint.path}, {"method", endpoint.method}, {"status", status}});
    }
  }
  text.HistogramFamily("http_request_duration_seconds",
                       "From a request's head and body to the last byte of its answer.");
  for (const EndpointStats& endpoint : server.endpoints) {
    text.Sample(endpoint.seconds, {{"handler", endpoint.path}, {"method", endpoint.method}});
  }
}

}  // namespace moebius::serve
