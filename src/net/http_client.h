// An HTTP/1.1 client for thousands of requests at once, each a coroutine, on one thread of its own.
// http:// and https://. Connections are kept and used again; a request whose kept connection turns
// out to be closed, before any byte of an answer, goes over a fresh one.
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
  bool verify_peer = true;  // https: by the system's certificates (or SSL_CERT_FILE), and by name
};

// Called on the client's thread, in order, and quick. `on_end` is the last, exactly once.
struct HttpCallbacks {
  std::function<void(int status, const std::vector<HttpHeader>& headers)> on_head;
  // A piece of the body as it came from the socket.
  std::function<void(std::string_view bytes, std::chrono::steady_clock::time_point arrival)>
      on_data;
  // OK: the body is complete, whatever the status. kUnavailable: no connection, or it broke;
  // kDeadline; kCancelled; kInvalidArgument: the request's header cannot be sent.
  std::function<void(Status)> on_end;
};

class HttpClient {
 public:
  // kInvalidArgument: the URL, and what one looks like. Connects when there is a request.
  static Result<std::unique_ptr<HttpClient>> Create(const HttpClientOptions& options);
  // Cancels what is under way (on_end is called) and joins the thread: not on it.
  virtual ~HttpClient() = default;

  // Any thread. The target is appended to the URL's prefix. Returns a handle for Cancel.
  virtual int64_t Start(HttpRequest request, HttpCallbacks callbacks) = 0;
  virtual void Cancel(int64_t handle) = 0;  // ended or unknown: no effect

  // Start and wait for the whole answer. Not on the client's thread.
  Result<HttpResponse> Fetch(HttpRequest request);
};

}  // namespace moebius::net
