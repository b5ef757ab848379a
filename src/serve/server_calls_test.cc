// Calls through a whole server: streams, choices, limits, disconnects, drain. Real sockets, an
// engine in the test's hand.
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>

#include "serve/testing/rig.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

// A prompt and the answer of two rounds of it.
struct Echo {
  Echo(const Rig& rig, const std::string& prompt) : text(prompt + prompt) {
    body = {{"prompt", prompt}, {"max_tokens", 2 * rig.Tokens(prompt).size()}};
  }
  json Streamed() const {
    json streamed = body;
    streamed["stream"] = true;
    return streamed;
  }
  std::string text;
  json body;
};

TEST(ServerCalls, StreamedAndWholeAnswersAgree) {
  const Rig rig;
  const Echo echo(rig, "Grüße, 世界 🌍! One two three. ");
  const TestAnswer whole = Post(rig.port, "/v1/completions", echo.body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(whole.Json()["choices"][0]["text"], echo.text);
  EXPECT_EQ(whole.Json()["choices"][0]["finish_reason"], "length");
  const TestAnswer streamed = Post(rig.port, "/v1/completions", echo.Streamed());
  EXPECT_EQ(streamed.status, 200);
  EXPECT_EQ(streamed.Header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(TextOf(EventsOf(streamed.body)), echo.text);

  const json chat = {{"messages", {{{"role", "user"}, {"content", "hello there"}}}},
                     {"max_tokens", 12}};
  json chat_streamed = chat;
  chat_streamed["stream"] = true;
  const TestAnswer said = Post(rig.port, "/v1/chat/completions", chat);
  ASSERT_EQ(said.status, 200) << said.body;
  EXPECT_EQ(TextOf(EventsOf(Post(rig.port, "/v1/chat/completions", chat_streamed).body)),
            said.Json()["choices"][0]["message"]["content"].get<std::string>());
}

TEST(ServerCalls, ChoicesOfManyPromptsAreApart) {
  const Rig rig;
  const std::string first = "one two three four";
  const std::string second = "quick brown foxes";
  const size_t tokens = rig.Tokens(first).size() * rig.Tokens(second).size();
  json body = {{"prompt", {first, second}}, {"n", 2}, {"max_tokens", tokens}};
  const json whole = Post(rig.port, "/v1/completions", body).Json();
  ASSERT_EQ(whole["choices"].size(), 4U) << whole;
  body["stream"] = true;
  const std::vector<json> events = EventsOf(Post(rig.port, "/v1/completions", body).body);
  for (int i = 0; i < 4; ++i) {
    const std::string text = whole["choices"][i]["text"];
    EXPECT_EQ(whole["choices"][i]["index"], i);
    EXPECT_TRUE(text.starts_with(i < 2 ? first : second)) << text;
    EXPECT_EQ(TextOf(events, i), text);
  }
  EXPECT_EQ(rig.server->TakeSnapshot().server.params_n.sum(), 4);
}

TEST(ServerCalls, AStopStringEndsTheChoiceAndTheEngineHearsOfIt) {
  const Rig rig;
  for (const bool stream : {false, true}) {
    const json body = {{"prompt", "alpha beta gamma delta "},
                       {"max_tokens", 100000},
                       {"stop", {"gamma"}},
                       {"stream", stream}};
    const TestAnswer answer = Post(rig.port, "/v1/completions", body);
    const std::string text = stream ? TextOf(EventsOf(answer.body))
                                    : answer.Json()["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(text, "alpha beta ");
    EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
  }
}

TEST(ServerCalls, AClientThatLeavesFreesItsRequests) {
  const Rig rig;
  rig.engine->Hold();
  for (const bool stream : {true, false}) {
    const int64_t before = rig.engine->num_cancelled();
    TestClient client(rig.port);
    client.Send(
        "POST", "/v1/completions",
        json{{"prompt", {"a b c", "d e f"}}, {"max_tokens", 100000}, {"stream", stream}}.dump());
    ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 2; }));
    EXPECT_EQ(Call(rig.port, "GET", "/load").Json()["server_load"], 1);
    client.Close();
    EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
    EXPECT_EQ(rig.engine->num_cancelled(), before + 2);
    EXPECT_TRUE(
        Eventually([&] { return Call(rig.port, "GET", "/load").Json()["server_load"] == 0; }));
  }
  const ServerStats stats = rig.server->TakeSnapshot().server;
  EXPECT_EQ(stats.num_clients_gone, 2);
}

TEST(ServerCalls, AFailureIsACodeBeforeTheStreamAndAnEventWithinIt) {
  const Rig rig;
  rig.engine->Hold();
  TestClient whole(rig.port);
  whole.Send("POST", "/v1/completions", R"({"prompt": "a b c", "n": 3})");
  TestClient streamed(rig.port);
  streamed.Send("POST", "/v1/completions",
                R"({"prompt": "a b c", "n": 2, "max_tokens": 50, "stream": true})");
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 5; }));
  rig.engine->FailAll(Error(ErrorCode::kInternal, "the step failed"));
  const TestAnswer answer = whole.ReadAnswer();
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.Json()["error"]["message"], "the step failed");
  const std::vector<json> events = EventsOf(streamed.ReadAnswer().body);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["error"]["message"], "the step failed");
  rig.engine->Release();
  EXPECT_EQ(Post(rig.port, "/v1/completions", {{"prompt", "x"}}).status, 200);
}

TEST(ServerCalls, AFullEngineIs429) {
  const Rig rig(TestOptions(), 2);
  rig.engine->Hold();
  TestClient first(rig.port);
  first.Send("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 3})");
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 1; }));
  const TestAnswer refused = Post(rig.port, "/v1/completions", {{"prompt", "b"}, {"n", 2}});
  EXPECT_EQ(refused.status, 429) << refused.body;
  EXPECT_EQ(refused.Header("retry-after"), "1");
  // The choice that was let in is taken back.
  EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 1; }));
  rig.engine->Release();
  EXPECT_EQ(first.ReadAnswer().status, 200);
  EXPECT_EQ(rig.server->TakeSnapshot().server.num_queue_full, 1);
}

TEST(ServerCalls, ACallPastItsTimeIs504) {
  ServerOptions options = TestOptions();
  options.request_timeout = std::chrono::milliseconds(500);
  const Rig rig(options);
  rig.engine->Hold();
  TestClient streamed(rig.port);
  streamed.Send("POST", "/v1/completions", R"({"prompt": "a b", "stream": true})");
  ASSERT_TRUE(streamed.ReadUntil("200 OK"));
  const TestAnswer whole = Post(rig.port, "/v1/completions", {{"prompt", "a b"}});
  EXPECT_EQ(whole.status, 504);
  EXPECT_NE(whole.Json()["error"]["message"].get<std::string>().find("500 ms"), std::string::npos);
  const std::vector<json> events = EventsOf(streamed.ReadAnswer().body);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["error"]["code"], 504);
  EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
  EXPECT_EQ(rig.server->TakeSnapshot().server.num_timeouts, 2);
}

TEST(ServerCalls, DrainLetsRunningCallsEnd) {
  const Rig rig;
  rig.engine->Hold();
  const Echo echo(rig, "as it was before ");
  TestClient streamed(rig.port);
  streamed.Send("POST", "/v1/completions", echo.Streamed().dump());
  TestClient whole(rig.port);
  whole.Send("POST", "/v1/completions", echo.body.dump());
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 2; }));
  auto drained = std::async(std::launch::async, [&] { return rig.server->Drain(); });
  // Whoever comes meanwhile is told.
  ASSERT_TRUE(Eventually([&] { return Call(rig.port, "GET", "/health").status == 503; }));
  EXPECT_EQ(Post(rig.port, "/v1/completions", echo.body).status, 503);
  EXPECT_EQ(Call(rig.port, "GET", "/health/live").status, 200);
  rig.engine->Release();
  EXPECT_EQ(TextOf(EventsOf(streamed.ReadAnswer().body)), echo.text);
  EXPECT_EQ(whole.ReadAnswer().Json()["choices"][0]["text"], echo.text);
  streamed.Close();
  whole.Close();
  const Status status = drained.get();
  EXPECT_TRUE(status) << status.error().message();
  EXPECT_FALSE(TestClient(rig.port).is_connected());
}

TEST(ServerCalls, DrainCutsOffWhatTakesTooLong) {
  ServerOptions options = TestOptions();
  options.drain_timeout = std::chrono::milliseconds(100);
  const Rig rig(options);
  rig.engine->Hold();
  TestClient streamed(rig.port);
  streamed.Send("POST", "/v1/completions", R"({"prompt": "a b", "stream": true})");
  TestClient whole(rig.port);
  whole.Send("POST", "/v1/completions", R"({"prompt": "a b"})");
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 2; }));
  auto drained = std::async(std::launch::async, [&] { return rig.server->Drain(); });
  EXPECT_EQ(whole.ReadAnswer().status, 503);
  const std::vector<json> events = EventsOf(streamed.ReadAnswer().body);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["error"]["code"], 503);
  streamed.Close();
  whole.Close();
  const Status status = drained.get();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kDeadline);
  EXPECT_NE(status.error().message().find("2 requests"), std::string::npos);
}

TEST(ServerCalls, AServerThatEndsCutsOffWhatIsUnderWay) {
  Rig rig;
  rig.engine->Hold();
  TestClient streamed(rig.port);
  streamed.Send("POST", "/v1/completions", R"({"prompt": "a b", "stream": true})");
  TestClient whole(rig.port);
  whole.Send("POST", "/v1/completions", R"({"prompt": "a b"})");
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 2; }));
  rig.server.reset();
  EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
}

TEST(ServerCalls, ManyStreamsStayIntact) {
  const Rig rig;
  rig.engine->set_step_time(std::chrono::microseconds(500));
  constexpr int kStreams = 250;
  std::vector<std::unique_ptr<TestClient>> clients;
  std::vector<Echo> echoes;
  for (int i = 0; i < kStreams; ++i) {
    echoes.emplace_back(
        rig, fmt::format("{} bottles number {} of {} stand here, 世界. ", i, i * 7919, i % 13));
    clients.push_back(std::make_unique<TestClient>(rig.port));
    ASSERT_TRUE(clients.back()->is_connected());
    clients.back()->Send("POST", "/v1/completions", echoes.back().Streamed().dump());
  }
  for (int i = 0; i < kStreams; ++i) {
    const TestAnswer answer = clients[i]->ReadAnswer();
    ASSERT_EQ(answer.status, 200);
    EXPECT_EQ(TextOf(EventsOf(answer.body)), echoes[i].text);
  }
  EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
}

// What a slow reader has not taken is merged: memory is that of its tokens, and nothing is lost.
TEST(ServerCalls, ASlowReaderMergesTokens) {
  const Rig rig;
  const std::string prompt = "one two three four five six seven eight nine ten ";
  const size_t num_tokens = rig.Tokens(prompt).size() * 3000;
  TestClient slow(rig.port, 4096);
  slow.Send("POST", "/v1/completions",
            json{{"prompt", prompt},
                 {"max_tokens", num_tokens},
                 {"stream", true},
                 {"stream_options", {{"include_usage", true}}}}
                .dump());
  ASSERT_TRUE(slow.ReadUntil("data:"));
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
  const std::vector<json> events = EventsOf(slow.ReadAnswer().body);
  std::string expected;
  for (int i = 0; i < 3000; ++i) expected += prompt;
  EXPECT_EQ(TextOf(events), expected);
  EXPECT_LT(events.size(), num_tokens / 2);
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], num_tokens);
}

}  // namespace
}  // namespace moebius::serve
