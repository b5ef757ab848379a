#include "bench/load/client.h"

#include <future>

#include "bench/load/answer_reader.h"

namespace moebius::load {

// One request under way; its callbacks share it.
struct LoadClient::Call {
  Call(RequestRecord r, bool keep_text) : record(std::move(r)), reader(&record, keep_text) {}

  RequestRecord record;
  AnswerReader reader;
  Done done;
  int64_t handle = 0;  // these two under the client's mutex
  bool has_ended = false;
};

Result<std::unique_ptr<LoadClient>> LoadClient::Create(const ClientOptions& options) {
  net::HttpClientOptions http;
  http.base_url = options.base_url;
  http.total_timeout = options.timeout;
  http.verify_peer = options.verify_peer;
  MOEBIUS_ASSIGN(auto client, net::HttpClient::Create(http));
  return std::unique_ptr<LoadClient>(new LoadClient(options, std::move(client)));
}

void LoadClient::Start(std::string body, RequestRecord record, Done done) {
  net::HttpRequest request;
  request.method = "POST";
  request.target = options_.endpoint;
  request.headers = options_.headers;
  request.headers.push_back({"Content-Type", "application/json"});
  request.headers.push_back({"Accept", "text/event-stream"});
  if (!options_.request_id_prefix.empty()) {
    request.headers.push_back(
        {"X-Request-Id", options_.request_id_prefix + std::to_string(record.index)});
  }
  request.body = std::move(body);

  record.sent = Now();
  const auto call = std::make_shared<Call>(std::move(record), options_.keep_text);
  call->done = std::move(done);
  const Clock::time_point origin = origin_;
  net::HttpCallbacks callbacks;
  callbacks.on_head = [call](int status, const std::vector<net::HttpHeader>&) {
    call->reader.OnHead(status);
  };
  callbacks.on_data = [call, origin](std::string_view bytes, Clock::time_point arrival) {
    call->reader.OnData(bytes, std::chrono::duration<double>(arrival - origin).count());
  };
  callbacks.on_end = [this, call, origin](const Status& status) {
    call->reader.OnEnd(status, std::chrono::duration<double>(Clock::now() - origin).count());
    {
      const std::lock_guard lock(mutex_);
      call->has_ended = true;
      handles_.erase(call->handle);
    }
    call->done(std::move(call->record));
  };
  const int64_t handle = http_->Start(std::move(request), std::move(callbacks));
  const std::lock_guard lock(mutex_);
  call->handle = handle;
  if (!call->has_ended) handles_.insert(handle);
}

RequestRecord LoadClient::Ask(std::string body, std::stop_token stop) {
  std::promise<RequestRecord> answer;
  Start(std::move(body), {}, [&](RequestRecord record) { answer.set_value(std::move(record)); });
  const std::stop_callback cancel(std::move(stop), [this] { CancelAll(); });
  return answer.get_future().get();
}

void LoadClient::CancelAll() {
  std::unordered_set<int64_t> handles;
  {
    const std::lock_guard lock(mutex_);
    handles.swap(handles_);
  }
  for (const int64_t handle : handles) http_->Cancel(handle);  // those that ended: no effect
}

Result<std::string> LoadClient::Fetch(const std::string& target, std::string body) {
  net::HttpRequest request;
  request.method = body.empty() ? "GET" : "POST";
  request.target = target;
  request.headers = options_.headers;
  if (!body.empty()) request.headers.push_back({"Content-Type", "application/json"});
  request.body = std::move(body);
  MOEBIUS_ASSIGN(net::HttpResponse response, http_->Fetch(std::move(request)));
  if (response.status == 200) return std::move(response.body);
  return MakeError(ErrorCode::kUnavailable, "{}{}: HTTP {}: {}", options_.base_url, target,
                   response.status, ErrorMessageOf(response.body));
}

Result<int> ReadyStatus(const ClientOptions& options) {
  net::HttpClientOptions http;
  http.base_url = options.base_url;
  http.connect_timeout = std::chrono::milliseconds(1000);
  http.total_timeout = std::chrono::milliseconds(5000);
  http.verify_peer = options.verify_peer;
  MOEBIUS_ASSIGN(const auto client, net::HttpClient::Create(http));
  int status = 0;
  for (const char* target : {"/health/ready", "/v1/models"}) {
    net::HttpRequest request;
    request.target = target;
    request.headers = options.headers;
    MOEBIUS_ASSIGN(const net::HttpResponse answer, client->Fetch(std::move(request)));
    status = answer.status;
    if (status != 404) break;
  }
  return status;
}

std::string ServerRoot(std::string url) {
  const auto drop_slashes = [&] {
    while (url.ends_with('/')) url.pop_back();
  };
  drop_slashes();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  drop_slashes();
  return url;
}

}  // namespace moebius::load
