// The server over a real engine and the demo model: what clients read is what the model says, and
// what they leave behind comes free.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "serve/testing/rig.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

class ServerModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    frontend::OpenOptions open;
    open.model = DemoFolder();
    open.engine.num_kv_blocks = 512;
    open.engine.max_model_len = 1024;
    open.engine.enable_prefix_caching = false;
    auto prepared = frontend::Prepare(open);
    ASSERT_TRUE(prepared) << prepared.error().message();
    auto opened = frontend::Load(std::move(*prepared));
    ASSERT_TRUE(opened) << opened.error().message();
    model_ = new frontend::OpenedModel(std::move(*opened));
    ServerOptions options = TestOptions();
    options.defaults = model_->defaults;
    auto server = Server::Start(options, model_->frontend.get());
    ASSERT_TRUE(server) << server.error().message();
    server_ = server->release();
  }
  static void TearDownTestSuite() {
    delete server_;
    delete model_;
  }

  static int port() { return server_->port(); }
  static int64_t num_used_blocks() { return model_->frontend->engine().Stats().num_used_kv_blocks; }

  static frontend::OpenedModel* model_;
  static Server* server_;
};
frontend::OpenedModel* ServerModel::model_ = nullptr;
Server* ServerModel::server_ = nullptr;

constexpr const char* kPrompt = "ADA: Where is the ";

TEST_F(ServerModel, GreedyTextIsThatOfTheFrontend) {
  frontend::GenerateRequest request;
  request.prompt = std::string(kPrompt);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 40;
  const auto expected = model_->frontend->Generate(request);
  ASSERT_TRUE(expected) << expected.error().message();
  ASSERT_FALSE(expected->text.empty());

  json body = {{"prompt", kPrompt}, {"max_tokens", 40}, {"temperature", 0}};
  const json whole = Post(port(), "/v1/completions", body).Json();
  EXPECT_EQ(whole["choices"][0]["text"], expected->text) << whole;
  EXPECT_EQ(whole["usage"]["completion_tokens"], expected->token_ids.size());
  body["stream"] = true;
  EXPECT_EQ(TextOf(EventsOf(Post(port(), "/v1/completions", body).body)), expected->text);
}

TEST_F(ServerModel, CountsOfExpertsAreThoseOfItsTokens) {
  const auto sums = [&](const char* phase) {
    const json counts = Call(port(), "GET", "/eplb/counts").Json();
    std::vector<int64_t> by_layer;
    for (const json& layer : counts["ranks"][0][phase]) {
      by_layer.push_back(0);
      for (const json& count : layer) by_layer.back() += count.get<int64_t>();
    }
    return by_layer;
  };
  // Counts are published when there is time.
  std::vector<int64_t> last;
  EXPECT_TRUE(Eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const std::vector<int64_t> before = std::exchange(last, sums("decode"));
    return before == last && num_used_blocks() == 0;
  }));
  const std::vector<int64_t> prefill = sums("prefill");
  const std::vector<int64_t> decode = sums("decode");
  ASSERT_FALSE(decode.empty());
  const json body = {
      {"prompt", kPrompt}, {"max_tokens", 9}, {"temperature", 0}, {"ignore_eos", true}};
  const json usage = Post(port(), "/v1/completions", body).Json()["usage"];
  const int64_t k = model_->config.moe.top_k;
  EXPECT_TRUE(Eventually([&] { return sums("decode")[0] - decode[0] >= k * 8; }));
  for (size_t layer = 0; layer < decode.size(); ++layer) {
    EXPECT_EQ(sums("prefill")[layer] - prefill[layer], k * usage["prompt_tokens"].get<int64_t>());
    // The last token drawn is not computed; a step may have been planned ahead.
    EXPECT_GE(sums("decode")[layer] - decode[layer], k * 8);
    EXPECT_LE(sums("decode")[layer] - decode[layer], k * 9);
  }
}

TEST_F(ServerModel, ChatIsTheSameStreamedAndWhole) {
  json body = {{"messages", {{{"role", "user"}, {"content", "Who are you?"}}}},
               {"max_tokens", 30},
               {"seed", 7},
               {"temperature", 0.8},
               {"n", 3}};
  const json whole = Post(port(), "/v1/chat/completions", body).Json();
  ASSERT_EQ(whole["choices"].size(), 3U) << whole;
  body["stream"] = true;
  const TestAnswer streamed = Post(port(), "/v1/chat/completions", body);
  const std::vector<json> events = EventsOf(streamed.body);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(TextOf(events, i), whole["choices"][i]["message"]["content"].get<std::string>());
  }
}

TEST_F(ServerModel, ClientsThatVanishLeaveNoBlockBehind) {
  std::mt19937 random(1);
  for (int round = 0; round < 8; ++round) {
    std::vector<std::unique_ptr<TestClient>> clients;
    for (int i = 0; i < 6; ++i) {
      clients.push_back(std::make_unique<TestClient>(port()));
      clients.back()->Send("POST", "/v1/completions",
                           json{{"prompt", {kPrompt, "THE ENGINEER: "}},
                                {"max_tokens", 800},
                                {"ignore_eos", true},
                                {"stream", random() % 2 == 0}}
                               .dump());
    }
    const int64_t some = static_cast<int64_t>(random() % 20);
    ASSERT_TRUE(Eventually([&] { return num_used_blocks() > some; }));
    clients.clear();
    ASSERT_TRUE(Eventually([&] { return num_used_blocks() == 0; }));
  }
  EXPECT_TRUE(Eventually([&] { return server_->TakeSnapshot().server.num_calls == 0; }));
  EXPECT_EQ(Post(port(), "/v1/completions", {{"prompt", kPrompt}, {"max_tokens", 2}}).status, 200);
}

TEST_F(ServerModel, WhatTheModelCannotHoldIsA400ThatNamesIt) {
  const TestAnswer answer =
      Post(port(), "/v1/completions", {{"prompt", kPrompt}, {"max_tokens", 5000}});
  EXPECT_EQ(answer.status, 400) << answer.body;
  EXPECT_NE(answer.body.find("1024"), std::string::npos) << answer.body;
}

TEST_F(ServerModel, MetricsCountWhatWasDone) {
  ASSERT_EQ(Post(port(), "/v1/completions", {{"prompt", kPrompt}, {"max_tokens", 3}}).status, 200);
  const std::string metrics = Call(port(), "GET", "/metrics").body;
  EXPECT_NE(metrics.find("vllm:generation_tokens_total{"), std::string::npos);
  const Snapshot snapshot = server_->TakeSnapshot();
  EXPECT_GT(snapshot.engine.num_output_tokens, 0);
  EXPECT_GT(snapshot.experts.num_layers(), 0);
}

}  // namespace
}  // namespace moebius::serve
