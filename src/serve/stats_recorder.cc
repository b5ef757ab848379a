#include "serve/stats_recorder.h"

namespace moebius::serve {
namespace {

constexpr double kSeconds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                               1,     2.5,    5,     10,   30,    60,   120, 300,  600};
constexpr double kChoices[] = {1, 2, 5, 10, 20};
constexpr int kUnauthorized = 401;

size_t IndexOf(const Route* route) {
  return route == nullptr ? Routes().size() : static_cast<size_t>(route - Routes().data());
}

}  // namespace

StatsRecorder::StatsRecorder(bool log_requests)
    : log_requests_(log_requests),
      answers_(Routes().size() + 1, {{}, Histogram(kSeconds)}),
      params_n_(kChoices) {}

void StatsRecorder::OnAnswer(const Route* route, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  Answers& answers = answers_[IndexOf(route)];
  ++answers.by_status[status];
  answers.seconds.Observe(seconds);
}

void StatsRecorder::OnCall(int64_t choices_per_prompt) {
  const std::lock_guard lock(mutex_);
  params_n_.Observe(static_cast<double>(choices_per_prompt));
}

ServerStats StatsRecorder::Take() const {
  ServerStats stats;
  stats.num_clients_gone = num_clients_gone_;
  stats.num_timeouts = num_timeouts_;
  stats.num_queue_full = num_queue_full_;
  stats.num_slow_readers = num_slow_readers_;
  stats.num_streamed_tokens = num_streamed_tokens_;
  stats.num_stream_pieces = num_stream_pieces_;
  stats.num_stream_bytes = num_stream_bytes_;
  const std::lock_guard lock(mutex_);
  stats.params_n = params_n_;
  for (size_t i = 0; i < answers_.size(); ++i) {
    const Answers& answers = answers_[i];
    if (answers.by_status.empty()) continue;
    EndpointStats endpoint;
    const bool is_known = i < Routes().size();
    endpoint.method = is_known ? Routes()[i].method : "";
    endpoint.path = is_known ? Routes()[i].path : "none";
    endpoint.num_by_status = answers.by_status;
    endpoint.seconds = answers.seconds;
    if (const auto found = answers.by_status.find(kUnauthorized);
        found != answers.by_status.end()) {
      stats.num_unauthorized += found->second;
    }
    stats.endpoints.push_back(std::move(endpoint));
  }
  return stats;
}

}  // namespace moebius::serve
