// The client, the generator and the whole of a benchmark against a small server that speaks as it
// is told: well, slowly, wrongly, or only half.
#include "bench/load/client.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/load/report.h"
#include "bench/load/serve_bench.h"
#include "net/http_server.h"

namespace moebius::load {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

// The whole of a stream, in pieces.
class Script : public net::BodySource {
 public:
  explicit Script(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  Piece Take() override {
    if (at_ == pieces_.size()) return {"", true};
    Piece piece{pieces_[at_], at_ + 1 == pieces_.size()};
    ++at_;
    return piece;
  }

 private:
  std::vector<std::string> pieces_;
  size_t at_ = 0;
};

// Answers completions with as many tokens as were asked for, or as the prompt says: "429", "500",
// "error" (inside the stream), "cut", "hang".
class FakeServer {
 public:
  explicit FakeServer(int port = 0) {
    net::HttpServerOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    auto server = net::HttpServer::Start(
        options, [this](net::HttpRequest request, const std::shared_ptr<net::Exchange>& exchange) {
          Answer(request, exchange);
        });
    EXPECT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }
  bool takes_text = true;
  int num_not_ready = 0;  // so many times it says that it loads its model

  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }

 private:
  static std::string Chunk(const std::string& text) {
    return "data: " + json{{"choices", {{{"text", text}, {"index", 0}}}}}.dump() + "\r\n\r\n";
  }

  void Answer(const net::HttpRequest& request, const std::shared_ptr<net::Exchange>& exchange) {
    if (num_not_ready > 0) {
      --num_not_ready;
      exchange->Respond({503, "application/json", {}, R"({"error": {"message": "loading"}})"});
      return;
    }
    if (request.path() == "/v1/models") {
      exchange->Respond({200, "application/json", {}, R"({"data": [{"id": "fake", "root": ""}]})"});
      return;
    }
    if (request.path() != "/v1/completions") {
      exchange->Respond({404, "application/json", {}, R"({"error": {"message": "no"}})"});
      return;
    }
    const json body = json::parse(request.body);
    const std::string prompt = body["prompt"].is_string() ? body["prompt"].get<std::string>() : "";
    if (body["prompt"].is_string() && !takes_text) {
      exchange->Respond({400, "application/json", {}, R"({"error": {"message": "no text"}})"});
      return;
    }
    if (prompt == "429" || prompt == "500") {
      exchange->Respond(
          {std::stoi(prompt), "application/json", {}, R"({"error": {"message": "not now"}})"});
      return;
    }
    if (prompt == "hang") {
      hanging_.push_back(exchange);
      return;
    }
    const int n = body["max_tokens"].get<int>();
    std::vector<std::string> pieces = {": hello\n\n"};
    for (int i = 0; i < n; ++i) pieces.push_back(Chunk("x"));
    if (prompt == "error") pieces.push_back("data: {\"error\": {\"message\": \"broke\"}}\n\n");
    if (prompt != "cut") {
      pieces.push_back("data: " +
                       json{{"choices", json::array()},
                            {"usage", {{"prompt_tokens", 5}, {"completion_tokens", n}}}}
                           .dump() +
                       "\n\n");
      pieces.push_back("data: [DONE]\n\n");
    }
    exchange->Stream({200, "text/event-stream", {}, ""},
                     std::make_unique<Script>(std::move(pieces)));
  }

  std::vector<std::shared_ptr<net::Exchange>> hanging_;
  std::unique_ptr<net::HttpServer> server_;
};

RequestRecord Ask(LoadClient& client, const std::string& prompt) {
  LoadRequest request;
  request.prompt = prompt;
  request.output_len = 3;
  return client.Ask(*RequestBody({}, request));
}

TEST(LoadClient, EveryEndHasItsClass) {
  FakeServer server;
  ClientOptions options;
  options.base_url = server.url();
  options.timeout = 300ms;
  options.keep_text = true;
  const auto client = LoadClient::Create(options);
  ASSERT_TRUE(client) << client.error().message();
  const RequestRecord good = Ask(**client, "hello");
  EXPECT_TRUE(good.ok()) << good.error;
  EXPECT_EQ(good.text, "xxx");
  EXPECT_EQ(good.output_tokens, 3);
  EXPECT_EQ(good.prompt_tokens, 5);
  EXPECT_EQ(good.events.size(), 3u);
  EXPECT_GT(good.Ttft(), 0);
  EXPECT_LT(good.Ttft(), 5);
  EXPECT_EQ(Ask(**client, "429").outcome, Outcome::kRateLimited);
  EXPECT_EQ(Ask(**client, "500").outcome, Outcome::kServerError);
  EXPECT_EQ(Ask(**client, "error").outcome, Outcome::kStreamError);
  EXPECT_EQ(Ask(**client, "cut").outcome, Outcome::kBroken);
  EXPECT_EQ(Ask(**client, "hang").outcome, Outcome::kTimeout);
}

TEST(LoadClient, NobodyThereIsBroken) {
  ClientOptions options;
  options.base_url = "http://127.0.0.1:1";
  const auto client = LoadClient::Create(options);
  ASSERT_TRUE(client);
  EXPECT_EQ(Ask(**client, "hello").outcome, Outcome::kBroken);
  EXPECT_FALSE((*client)->Fetch("/v1/models"));
}

TEST(LoadClient, CancelEndsWhatIsUnderWay) {
  FakeServer server;
  ClientOptions options;
  options.base_url = server.url();
  const auto client = LoadClient::Create(options);
  ASSERT_TRUE(client);
  std::jthread canceller([&] {
    for (int i = 0; i < 50; ++i) {
      std::this_thread::sleep_for(10ms);
      (*client)->CancelAll();
    }
  });
  EXPECT_EQ(Ask(**client, "hang").outcome, Outcome::kCancelled);
}

ServeBenchOptions Small(const std::string& url) {
  ServeBenchOptions options;
  options.client.base_url = url;
  options.dataset.num_prompts = 40;
  options.dataset.random_input_len = 6;
  options.dataset.random_output_len = 5;
  options.random_vocab_size = 100;
  options.shape.max_concurrency = 4;
  return options;
}

// A port where nobody listens, kept for a server that comes later: whoever sets SO_REUSEADDR, as
// servers do, may listen there besides.
class KeptPort {
 public:
  KeptPort() {
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    number_ = ntohs(address.sin_port);
  }
  ~KeptPort() { close(fd_); }
  KeptPort(const KeptPort&) = delete;
  KeptPort& operator=(const KeptPort&) = delete;
  int number() const { return number_; }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int number_ = 0;
};

TEST(ServeBench, PatienceIsForAServerThatOnlyStarts) {
  const KeptPort port;
  ServeBenchOptions options = Small("http://127.0.0.1:" + std::to_string(port.number()));
  options.random_vocab_size.reset();  // the server is asked for a tokenizer
  options.ready_check_timeout_sec = 0.3;
  const auto nobody = RunServeBench(options, {});
  ASSERT_FALSE(nobody);
  EXPECT_NE(nobody.error().message().find("the server is not ready: "), std::string::npos);
  options.ready_check_timeout_sec = 60;
  std::unique_ptr<FakeServer> server;
  std::jthread starter([&] {
    std::this_thread::sleep_for(300ms);
    server = std::make_unique<FakeServer>(port.number());
  });
  const auto bench = RunServeBench(options, {});
  starter.join();
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(bench->model, "fake");
  EXPECT_EQ(bench->figures.completed, 40);
}

TEST(ServeBench, AServerThatLoadsItsModelIsWaitedFor) {
  FakeServer server;
  server.num_not_ready = 3;
  ServeBenchOptions options = Small(server.url());
  options.ready_check_timeout_sec = 60;
  const auto bench = RunServeBench(options, {});
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(bench->figures.completed, 40);
}

TEST(LoadClient, AServersRootIsWithoutV1) {
  EXPECT_EQ(ServerRoot("http://h:1/v1"), "http://h:1");
  EXPECT_EQ(ServerRoot("http://h:1/v1//"), "http://h:1");
  EXPECT_EQ(ServerRoot("http://h:1/"), "http://h:1");
  EXPECT_EQ(ServerRoot("http://h:1/api/v1/"), "http://h:1/api");
  EXPECT_EQ(ServerRoot("http://h:1/apiv1"), "http://h:1/apiv1");
}

TEST(ServeBench, MeasuresAServer) {
  FakeServer server;
  ServeBenchOptions options = Small(server.url());
  options.num_warmups = 2;
  options.ready_check_timeout_sec = 5;
  options.probe_request_rate = 100;
  const auto bench = RunServeBench(options, {});
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(bench->model, "fake");
  EXPECT_EQ(bench->figures.completed, 40);
  EXPECT_EQ(bench->figures.failed, 0);
  EXPECT_EQ(bench->figures.output_tokens, 200);
  EXPECT_EQ(bench->figures.input_tokens, 200);  // as the server counts
  EXPECT_LE(bench->figures.max_concurrent_requests, 4);
  EXPECT_EQ(bench->figures.samples.itl.size(), 160u);
  EXPECT_TRUE(bench->steady.window);
  EXPECT_GE(bench->probe->completed, 1);
  const json result = json::parse(JsonReport(*bench, {}));
  EXPECT_EQ(result["completed"], 40);
}

TEST(ServeBench, WithoutATokenizerPromptsAreWords) {
  FakeServer server;
  ServeBenchOptions options = Small(server.url());
  options.random_vocab_size.reset();
  const auto bench = RunServeBench(options, {});
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(bench->tokenizer, "words");
  ASSERT_FALSE(bench->warnings.empty());
  EXPECT_NE(bench->warnings[0].find("counted in words"), std::string::npos);
  EXPECT_EQ(bench->figures.completed, 40);
}

TEST(ServeBench, AServerThatTakesNoTextGetsIds) {
  FakeServer server;
  server.takes_text = false;
  ServeBenchOptions options = Small(server.url());
  options.random_vocab_size.reset();
  const auto bench = RunServeBench(options, {});
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(bench->tokenizer, "ids");
  EXPECT_EQ(bench->figures.completed, 40);
  ASSERT_FALSE(bench->warnings.empty());
  EXPECT_NE(bench->warnings[0].find("token ids from 0 to 999"), std::string::npos);
  // Where text was asked for, text is sent.
  options.prompt_format = "text";
  options.ready_check_timeout_sec = 0;
  const auto text = RunServeBench(options, {});
  ASSERT_TRUE(text);
  EXPECT_EQ(text->figures.failed, 40);
}

// The error of a run that must not come to its load.
std::string ErrorOf(const ServeBenchOptions& options) {
  const auto bench = RunServeBench(options, {});
  EXPECT_FALSE(bench);
  return bench ? "" : bench.error().message();
}

TEST(ServeBench, WhatStandsInTheWayIsSaid) {
  FakeServer server;
  ServeBenchOptions options = Small(server.url());
  options.tokenizer = "/no/such/folder";
  EXPECT_FALSE(RunServeBench(options, {}));
  options = Small(server.url());
  options.client.base_url = "http://127.0.0.1:1";
  EXPECT_FALSE(RunServeBench(options, {}));
}

// One request goes before the load, unless it is told not to.
TEST(ServeBench, ATrialRequestFindsOutBeforeTheLoad) {
  FakeServer server;
  ServeBenchOptions options = Small(server.url());
  options.client.endpoint = "/nowhere";
  EXPECT_NE(ErrorOf(options).find("HTTP 404: no "), std::string::npos) << ErrorOf(options);
  options.ready_check_timeout_sec = 0;
  const auto bench = RunServeBench(options, {});
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(bench->figures.failed, 40);
  EXPECT_EQ(bench->figures.completed, 0);
  // The longest prompt is the one that is tried; being told to come later is no mistake.
  const std::string path = testing::TempDir() + "moebius_trial_test.jsonl";
  options = Small(server.url());
  options.dataset.name = "custom";
  options.dataset.path = path;
  std::ofstream(path) << R"({"prompt": "a"})"
                      << "\n"
                      << R"({"prompt": "500", "output_tokens": 1})"
                      << "\n";
  EXPECT_NE(ErrorOf(options).find("trial request before the load failed: HTTP 500: not now"),
            std::string::npos);
  std::ofstream(path) << R"({"prompt": "429"})"
                      << "\n";
  const auto busy = RunServeBench(options, {});
  ASSERT_TRUE(busy) << busy.error().message();
  EXPECT_EQ(busy->figures.by_outcome[static_cast<size_t>(Outcome::kRateLimited)], 40);
}

// Two of three hang; what an interrupt ends has not failed.
TEST(ServeBench, AnInterruptCancelsAndSaysSo) {
  FakeServer server;
  const std::string path = testing::TempDir() + "moebius_interrupt_test.jsonl";
  std::ofstream(path) << "{\"prompt\": \"a\"}\n{\"prompt\": \"hang\"}\n{\"prompt\": \"hang\"}\n";
  ServeBenchOptions options = Small(server.url());
  options.dataset.name = "custom";
  options.dataset.path = path;
  options.dataset.num_prompts = 3;
  options.ready_check_timeout_sec = 0;
  const auto stopped_soon = [&] {
    std::stop_source stop;
    std::jthread stopper([&] {
      std::this_thread::sleep_for(500ms);
      stop.request_stop();
    });
    return RunServeBench(options, stop.get_token());
  };
  const auto bench = stopped_soon();
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_TRUE(bench->run.was_stopped);
  EXPECT_EQ(bench->figures.completed, 1);
  EXPECT_EQ(bench->figures.cancelled, 2);
  EXPECT_EQ(bench->figures.failed, 0);
  const std::string text = ConsoleReport(*bench, {});
  EXPECT_NE(text.find("Cancelled requests (interrupted):        2 "), std::string::npos) << text;
  EXPECT_NE(text.find("interrupted:                             2 requests cancelled"),
            std::string::npos);
  EXPECT_NE(text.find("failures:                                none"), std::string::npos);
  EXPECT_NE(HtmlReport(*bench, {}).find("Interrupted, 2 cancelled: 1 requests"), std::string::npos);
  const json result = json::parse(JsonReport(*bench, {}));
  EXPECT_EQ(result["failed"], 0);
  EXPECT_EQ(result["moebius"]["interrupted"], true);
  EXPECT_EQ(result["moebius"]["cancelled"], 2);
  EXPECT_EQ(result["moebius"]["first_error"], nullptr);
  // While the trial request hangs, too.
  options.ready_check_timeout_sec.reset();
  const auto before = stopped_soon();
  ASSERT_FALSE(before);
  EXPECT_EQ(before.error().code(), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace moebius::load
