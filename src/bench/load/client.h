// The client of a benchmark: sends prepared bodies and gives back what happened to each. One a run;
// the HTTP client below it has the only thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "bench/load/record.h"
#include "net/http_client.h"

namespace moebius::load {

using Clock = std::chrono::steady_clock;

struct ClientOptions {
  std::string base_url = "http://127.0.0.1:8000";
  std::string endpoint = "/v1/completions";
  std::vector<net::HttpHeader> headers;  // of every request: Authorization and the user's own
  std::string request_id_prefix;         // X-Request-Id is this and the index; empty: none
  std::chrono::milliseconds timeout{std::chrono::hours(6)};  // of one request
  bool keep_text = false;
  bool verify_peer = true;  // https
};

class LoadClient {
 public:
  using Done = std::function<void(RequestRecord)>;

  static Result<std::unique_ptr<LoadClient>> Create(const ClientOptions& options);

  // Times of records count from here on. Before the first Start.
  void SetOrigin(Clock::time_point origin) { origin_ = origin; }
  double Now() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }

  // Any thread. Stamps record.sent and sends; `done` runs on the client's thread, once.
  void Start(std::string body, RequestRecord record, Done done);
  // Start and wait. A stop request cancels all that is under way.
  RequestRecord Ask(std::string body, std::stop_token stop = {});
  void CancelAll();

  // Any other request to the same server, with the same headers: GET without a body, else POST.
  // kUnavailable also if the answer's status is not 200.
  Result<std::string> Fetch(const std::string& target, std::string body = "");

 private:
  struct Call;

  LoadClient(ClientOptions options, std::unique_ptr<net::HttpClient> http)
      : options_(std::move(options)), http_(std::move(http)) {}

  ClientOptions options_;
  Clock::time_point origin_ = Clock::now();
  std::mutex mutex_;  // guards handles_
  std::unordered_set<int64_t> handles_;
  std::unique_ptr<net::HttpClient> http_;  // last: its thread ends before the rest goes
};

// The status of GET /health/ready or, where there is none, of /v1/models; asked anew, within
// seconds. kUnavailable: nobody answers.
Result<int> ReadyStatus(const ClientOptions& options);

// The server that `url` is of: clients are given it with /v1, which the paths have already.
std::string ServerRoot(std::string url);

}  // namespace moebius::load
