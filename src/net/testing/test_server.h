// A server on a free port of this machine, for tests.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "net/http_server.h"

namespace moebius::net {

// Polls until it is so; false: not within ten seconds.
inline bool WaitFor(const std::function<bool()>& is_so) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline HttpResponse TextResponse(std::string body, std::vector<HttpHeader> headers = {}) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.headers = std::move(headers);
  response.body = std::move(body);
  return response;
}

class TestServer {
 public:
  // The handler answers "METHOD PATH <length of the body>" by default.
  explicit TestServer(HttpServerOptions options = {}, HttpServer::Handler handler = {}) {
    if (options.host == "0.0.0.0") options.host = "127.0.0.1";
    options.port = 0;
    if (!handler) {
      handler = [](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
        exchange->Respond(TextResponse(request.method + " " + std::string(request.path()) + " " +
                                       std::to_string(request.body.size())));
      };
    }
    auto server = HttpServer::Start(options, std::move(handler), [](int status, const auto&) {
      return "{\"code\": " + std::to_string(status) + "}";
    });
    EXPECT_TRUE(server.has_value()) << server.error().message();
    server_ = std::move(*server);
  }

  HttpServer* operator->() { return server_.get(); }
  int port() const { return server_->port(); }

 private:
  std::unique_ptr<HttpServer> server_;
};

}  // namespace moebius::net
