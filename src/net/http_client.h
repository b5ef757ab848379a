// An HTTP/1.1 client for thousands of requests at once, each a coroutine, on one thread of its own.
// http:// and https://. Connections are kept and used again.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http_message.h"

namespace moebius::net {

struct HttpClientOptions {
  std::string base_url = "http://127.0.0.1:8000";  // scheme://host[:port][/prefix]
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds total_timeout{std::chrono::hours(6)};  // of one request
};

// Called on the client's thread, in order, and quick. `on_end` is the last, exactly once.
struct HttpCallbacks {
  std::function<void(int status, const std::vector<HttpHeader>& headers)> on_head;
  // A piece of the body as it came from the socket.
  std::function<void(std::string_view bytes, std::chrono::steady_clock::time_point arrival)>
      on_data;
  // OK: the body is complete, whatever the status. kUnavailable: no connection, or it broke;
  // kDeadline; kCancelled.
  std::function<void(Status)> on_end;
};

class HttpClient {
 public:
  // kInvalidArgument: the URL, and what one looks like.
  static Result<std::unique_ptr<HttpClient>> Create(const HttpClientOptions& options);
  virtual ~HttpClient() = default;  // cancels what is under way and joins the thread

  // Any thread. The target is appended to the URL's prefix. Returns a handle for Cancel.
  virtual int64_t Start(HttpRequest request, HttpCallbacks callbacks) = 0;
  virtual void Cancel(int64_t handle) = 0;  // ended or unknown: no effect

  // Start and wait for the whole answer. Not on the client's thread.
  Result<HttpResponse> Fetch(HttpRequest request);
};

}  // namespace moebius::net
