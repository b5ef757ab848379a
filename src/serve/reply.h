// The answer to one request: puts the headers on that every answer has and counts it. Shared by
// whoever works on the request; any thread. What is never answered (a job dropped at the end of the
// server) is a 503.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "net/http_server.h"
#include "serve/openai/api_call.h"
#include "serve/stats_recorder.h"

namespace moebius::serve {

class Reply {
 public:
  using Clock = std::chrono::steady_clock;

  // `headers` go on the answer. `stats` outlives this.
  Reply(std::shared_ptr<net::Exchange> exchange, StatsRecorder* stats, const Route* route,
        std::string request_id, std::vector<net::HttpHeader> headers);
  ~Reply();

  // The first of these three counts, later ones have no effect.
  void Send(net::HttpResponse response);
  void SendJson(std::string body, int status = 200);
  void SendError(const ApiError& error);
  // Server-sent events. False: it has been answered, `source` is dropped.
  bool Stream(std::unique_ptr<net::BodySource> source);

  // Streamed: the last piece is made, or the client has left.
  void EndStream();
  // The client has left: if nothing was sent, nothing will be.
  void SetGone();
  bool is_answered() const { return is_answered_; }

  net::Exchange& exchange() { return *exchange_; }
  const std::string& request_id() const { return request_id_; }
  Clock::time_point arrival() const { return arrival_; }

 private:
  void Count(int status);

  const std::shared_ptr<net::Exchange> exchange_;
  StatsRecorder* const stats_;
  const Route* const route_;
  const std::string request_id_;
  const std::vector<net::HttpHeader> headers_;
  const Clock::time_point arrival_ = Clock::now();
  std::atomic<bool> is_answered_{false};
  std::atomic<bool> is_counted_{false};
};

// The answer to a failed call; Retry-After included.
net::HttpResponse ErrorResponse(const ApiError& error);

}  // namespace moebius::serve
