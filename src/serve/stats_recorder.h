// Counts what the server does. Owned by the server; any thread. The counters of the streaming path
// are atomics, the rest is one mutex, taken once or twice a request.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "base/histogram.h"
#include "serve/routes.h"
#include "serve/server_stats.h"

namespace moebius::serve {

constexpr int kClientGone = 499;  // as a status: the client left before it had one

class StatsRecorder {
 public:
  // log_requests: answers are to be logged, too.
  explicit StatsRecorder(bool log_requests = false);

  bool log_requests() const { return log_requests_; }

  // A request of that route (null: none) has been answered.
  void OnAnswer(const Route* route, int status, double seconds);
  void OnCall(int64_t choices_per_prompt);
  void OnClientGone() { ++num_clients_gone_; }
  void OnTimeout() { ++num_timeouts_; }
  void OnQueueFull() { ++num_queue_full_; }
  void OnSlowReader() { ++num_slow_readers_; }
  void OnStreamPiece(int64_t num_tokens, size_t num_bytes) {
    num_streamed_tokens_.fetch_add(num_tokens, std::memory_order_relaxed);
    num_stream_pieces_.fetch_add(1, std::memory_order_relaxed);
    num_stream_bytes_.fetch_add(static_cast<int64_t>(num_bytes), std::memory_order_relaxed);
  }

  // All but the gauges and what the HTTP server counts.
  ServerStats Take() const;

 private:
  struct Answers {
    std::map<int, int64_t> by_status;
    Histogram seconds;
  };

  const bool log_requests_;
  std::atomic<int64_t> num_clients_gone_{0};
  std::atomic<int64_t> num_timeouts_{0};
  std::atomic<int64_t> num_queue_full_{0};
  std::atomic<int64_t> num_slow_readers_{0};
  std::atomic<int64_t> num_streamed_tokens_{0};
  std::atomic<int64_t> num_stream_pieces_{0};
  std::atomic<int64_t> num_stream_bytes_{0};

  mutable std::mutex mutex_;
  std::vector<Answers> answers_;  // by route; the last: none
  Histogram params_n_;
};

}  // namespace moebius::serve
