// For tests: a server over the demo model's tokenizer and a TestEngine.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "frontend/open.h"
#include "serve/server.h"
#include "serve/testing/test_client.h"
#include "serve/testing/test_engine.h"

namespace moebius::serve {

inline std::string DemoFolder() { return std::string(MOEBIUS_SOURCE_DIR) + "/models/demo"; }

inline ServerOptions TestOptions() {
  ServerOptions options;
  options.http.host = "127.0.0.1";
  options.http.port = 0;
  options.served_model_names = {"demo", "org/other name"};
  options.model_root = "models/demo";
  options.version = "1.2.3";
  options.drain_timeout = std::chrono::milliseconds(5000);
  return options;
}

// True once `condition` is; false after a minute.
inline bool Eventually(const std::function<bool()>& condition) {
  // Sanitizers on a busy machine are slow; what never comes is worth a minute.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

struct Rig {
  explicit Rig(const ServerOptions& options = TestOptions(), int64_t max_requests = 1 << 20) {
    frontend::OpenOptions open;
    open.model = DemoFolder();
    auto prepared = frontend::Prepare(open);
    EXPECT_TRUE(prepared) << prepared.error().message();
    engine = new TestEngine(prepared->config.vocab_size, max_requests);
    frontend = std::make_unique<frontend::Frontend>(std::unique_ptr<engine::EngineClient>(engine),
                                                    std::move(prepared->encoder));
    auto started = Server::Start(options, frontend.get());
    EXPECT_TRUE(started) << started.error().message();
    server = std::move(*started);
    port = server->port();
  }

  std::vector<TokenId> Tokens(const std::string& text) const {
    return *frontend->encoder().Encode(frontend::Prompt(text));
  }

  TestEngine* engine;  // the frontend's
  std::unique_ptr<frontend::Frontend> frontend;
  std::unique_ptr<Server> server;
  int port = 0;
};

}  // namespace moebius::serve
