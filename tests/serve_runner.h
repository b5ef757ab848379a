// Runs `moebius serve` the way a user does: until it is ready, through its port, to its end.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "cli_runner.h"
#include "net/http_client.h"

namespace moebius {

class ServeTest : public CliTest {
 protected:
  void TearDown() override {
    if (server_ != 0) {
      kill(server_, SIGKILL);
      Wait(server_);
    }
    CliTest::TearDown();
  }

  // Until it says that it is ready; url_ is where.
  void Serve(const Args& args, const Args& environment = {}) {
    Write("stdin", "");
    server_ = Start(Args{"serve"} + args + Args{"--host", "127.0.0.1", "--port", "0"}, "server_",
                    environment);
    ASSERT_NE(server_, 0);
    for (int i = 0; i < 6000 && url_.empty(); ++i) {
      const std::string out = ReadFile(folder_ + "server_out");
      const size_t at = out.find("API at ");
      const size_t end = out.find("/v1", at == std::string::npos ? 0 : at);
      if (at != std::string::npos && end != std::string::npos) {
        url_ = out.substr(at + 7, end - at - 7);
      }
      int status = 0;
      if (waitpid(server_, &status, WNOHANG) == server_) {
        server_ = 0;
        FAIL() << ReadFile(folder_ + "server_err");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_FALSE(url_.empty()) << ReadFile(folder_ + "server_err");
  }

  net::HttpResponse Fetch(const std::string& method, const std::string& target,
                          const std::string& body = "", const std::string& key = "",
                          const std::vector<net::HttpHeader>& headers = {}) const {
    net::HttpClientOptions options;
    options.base_url = url_;
    auto client = net::HttpClient::Create(options);
    EXPECT_TRUE(client) << client.error().message();
    net::HttpRequest request;
    request.method = method;
    request.target = target;
    request.body = body;
    request.headers = headers;
    if (!body.empty()) request.headers.push_back({"Content-Type", "application/json"});
    if (!key.empty()) request.headers.push_back({"Authorization", "Bearer " + key});
    auto response = (*client)->Fetch(std::move(request));
    EXPECT_TRUE(response) << response.error().message();
    return response ? *response : net::HttpResponse{};
  }

  // Until calls are under way.
  void WaitForLoad() const {
    for (int i = 0; i < 15000; ++i) {
      if (!Contains(Fetch("GET", "/load").body, ":0")) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ADD_FAILURE() << "no request has come";
  }

  // A signal and what comes of it.
  int End(int signal) {
    kill(server_, signal);
    const int exit_code = Wait(server_);
    server_ = 0;
    return exit_code;
  }

  pid_t server_ = 0;
  std::string url_;
};

}  // namespace moebius
