// What the server does around its calls: routes, access, health, limits, the page. Real sockets.
#include "serve/server.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "serve/testing/rig.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

void ExpectError(const TestAnswer& answer, int status, const std::string& part) {
  EXPECT_EQ(answer.status, status) << answer.body;
  const json error = answer.Json()["error"];
  EXPECT_EQ(error["code"], status);
  EXPECT_TRUE(error["type"].is_string());
  EXPECT_TRUE(error.contains("param"));
  EXPECT_NE(error["message"].get<std::string>().find(part), std::string::npos) << answer.body;
}

TEST(Server, AnswersWhatNeedsNoEngine) {
  const Rig rig;
  const TestAnswer models = Call(rig.port, "GET", "/v1/models");
  EXPECT_EQ(models.status, 200);
  EXPECT_EQ(models.Header("content-type"), "application/json");
  EXPECT_EQ(models.Json()["data"][0]["id"], "demo");
  EXPECT_EQ(Call(rig.port, "GET", "/v1/models/demo").Json()["id"], "demo");
  EXPECT_EQ(Call(rig.port, "GET", "/v1/models/org%2Fother%20name").Json()["id"], "org/other name");
  ExpectError(Call(rig.port, "GET", "/v1/models/gpt"), 404, "gpt");
  EXPECT_EQ(Call(rig.port, "GET", "/version").Json()["version"], "1.2.3");
  EXPECT_EQ(Call(rig.port, "GET", "/load").Json()["server_load"], 0);

  const TestAnswer tokens = Post(rig.port, "/tokenize", {{"prompt", "to be or not to be"}});
  EXPECT_EQ(tokens.status, 200) << tokens.body;
  EXPECT_EQ(tokens.Json()["tokens"].get<std::vector<TokenId>>(), rig.Tokens("to be or not to be"));
  const TestAnswer text = Post(rig.port, "/detokenize", {{"tokens", tokens.Json()["tokens"]}});
  EXPECT_EQ(text.Json()["prompt"], "to be or not to be");
  EXPECT_EQ(Call(rig.port, "GET", "/tokenizer_info").status, 200);

  const TestAnswer metrics = Call(rig.port, "GET", "/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_NE(metrics.body.find("vllm:num_requests_running"), std::string::npos);
  EXPECT_TRUE(Call(rig.port, "GET", "/moebius/stats").Json().is_object());
  const TestAnswer counts = Call(rig.port, "GET", "/eplb/counts");
  EXPECT_EQ(counts.status, 200);
  EXPECT_EQ(counts.Header("content-type"), "application/json");
  const json zeros(std::vector<std::vector<int>>(2, std::vector<int>(4)));
  ASSERT_EQ(counts.Json()["ranks"].size(), 1u);
  EXPECT_EQ(counts.Json()["ranks"][0]["decode"], zeros);
  EXPECT_EQ(counts.Json()["ranks"][0]["prefill"], zeros);
  EXPECT_EQ(counts.Json()["epoch"], 0);
  const TestAnswer page = Call(rig.port, "GET", "/");
  EXPECT_EQ(page.Header("content-type"), "text/html; charset=utf-8");
  EXPECT_NE(page.body.find("<html"), std::string::npos);
}

TEST(Server, UnknownPathsAndMethodsSayWhatExists) {
  const Rig rig;
  ExpectError(Call(rig.port, "GET", "/v1/embeddings"), 404,
              "this server has /v1/chat/completions, ");
  const TestAnswer wrong = Call(rig.port, "GET", "/v1/completions/");
  ExpectError(wrong, 405, "POST");
  EXPECT_EQ(wrong.Header("allow"), "POST, OPTIONS");
  EXPECT_EQ(Call(rig.port, "DELETE", "/ping").Header("allow"), "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(Call(rig.port, "GET", "/health/").status, 200);
  EXPECT_EQ(Call(rig.port, "HEAD", "/health").status, 200);
  EXPECT_EQ(Call(rig.port, "POST", "/ping").status, 200);
}

TEST(Server, KeysGuardAllButHealthAndMetrics) {
  ServerOptions options = TestOptions();
  options.api_keys = {"first-key", "second"};
  const Rig rig(options);
  for (const std::string header :
       {"X-Other: 1", "Authorization: Bearer wrong", "Authorization: Bearer ",
        "Authorization: first-key", "Authorization: Bearer first-keyfirst-key"}) {
    const TestAnswer answer = Call(rig.port, "GET", "/v1/models", "", {header});
    ExpectError(answer, 401, "Bearer");
    EXPECT_EQ(answer.Header("www-authenticate"), "Bearer");
  }
  for (const std::string key : {"Bearer first-key", "bearer second"}) {
    EXPECT_EQ(Call(rig.port, "GET", "/v1/models", "", {"Authorization: " + key}).status, 200);
  }
  ExpectError(Call(rig.port, "POST", "/tokenize", "{}"), 401, "key");
  ExpectError(Call(rig.port, "GET", "/moebius/stats"), 401, "key");
  ExpectError(Call(rig.port, "GET", "/eplb/counts"), 401, "key");
  for (const std::string path :
       {"/health", "/health/live", "/health/ready", "/health/progress", "/ping", "/metrics", "/"}) {
    EXPECT_EQ(Call(rig.port, "GET", path).status, 200) << path;
  }
  EXPECT_EQ(rig.server->TakeSnapshot().server.num_unauthorized, 8);
  const Rig open;
  EXPECT_EQ(Call(open.port, "GET", "/v1/models", "", {"Authorization: Bearer "}).status, 200);
}

TEST(Server, BodiesOfWhoMayNotCallAreNotRead) {
  ServerOptions options = TestOptions();
  options.api_keys = {"secret"};
  const Rig rig(options);
  const auto status = [&](const std::string& line, const std::string& header = "") {
    TestClient client(rig.port);
    client.SendRaw(line + " HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n" + header +
                   "\r\nbegin");
    const TestAnswer answer = client.ReadAnswer();
    EXPECT_EQ(answer.Header("connection"), "close") << answer.body;
    return answer.status;
  };
  EXPECT_EQ(status("POST /v1/completions"), 401);
  EXPECT_EQ(status("POST /v1/completions", "Authorization: Bearer secres\r\n"), 401);
  EXPECT_EQ(status("POST /nowhere"), 404);
  EXPECT_EQ(status("PUT /v1/completions"), 405);
  EXPECT_EQ(status("POST /ping"), 200);
  EXPECT_EQ(Post(rig.port, "/tokenize", {{"prompt", std::string(300000, 'a')}},
                 {"Authorization: Bearer secret"})
                .status,
            200);
}

TEST(Server, RequestIdsAreEchoedOrMade) {
  const Rig rig;
  EXPECT_EQ(Call(rig.port, "GET", "/load", "", {"X-Request-Id: abc-1"}).Header("x-request-id"),
            "abc-1");
  for (const std::string& bad : {std::string(129, 'a'), std::string("a b"), std::string("ü")}) {
    const std::string made =
        Call(rig.port, "GET", "/load", "", {"X-Request-Id: " + bad}).Header("x-request-id");
    EXPECT_EQ(made.size(), 32U) << made;
  }
  const TestAnswer error = Call(rig.port, "GET", "/nothing", "", {"X-Request-Id: e"});
  EXPECT_EQ(error.Header("x-request-id"), "e");
  const TestAnswer answer = Post(rig.port, "/v1/completions", {{"prompt", "hi"}, {"max_tokens", 1}},
                                 {"X-Request-Id: mine"});
  EXPECT_EQ(answer.Header("x-request-id"), "mine");
  EXPECT_NE(answer.Json()["id"].get<std::string>().find("mine"), std::string::npos);
}

TEST(Server, HeaderNamesTheDataParallelRank) {
  const Rig rig;  // of an engine with 4 ranks
  const auto post = [&](const std::vector<std::string>& headers) {
    return Post(rig.port, "/v1/completions", {{"prompt", "hi"}, {"max_tokens", 1}}, headers);
  };
  EXPECT_EQ(post({"x-DATA-parallel-rank:  3 "}).status, 200);
  EXPECT_EQ(rig.engine->last_wish(), 3);
  EXPECT_EQ(post({}).status, 200);
  EXPECT_EQ(rig.engine->last_wish(), std::nullopt);
  for (const std::string bad : {"4", "-1", "one", "1.5", "1 2", "99999999999999999999", ""}) {
    const TestAnswer answer = post({"X-data-parallel-rank: " + bad});
    EXPECT_EQ(answer.status, 400) << bad;
    const auto error = answer.Json()["error"];
    EXPECT_EQ(error["param"], "X-data-parallel-rank");
    EXPECT_EQ(error["message"],
              "the header X-data-parallel-rank is \"" + bad + "\", expected a rank from 0 to 3");
  }
}

TEST(Server, WebPagesOfAllowedOriginsMayCall) {
  const Rig any;
  EXPECT_EQ(Call(any.port, "GET", "/load", "", {"Origin: http://a"})
                .Header("access-control-allow-origin"),
            "*");
  EXPECT_EQ(Call(any.port, "GET", "/load").Header("access-control-allow-origin"), "");
  const TestAnswer asked = Call(any.port, "OPTIONS", "/v1/chat/completions", "",
                                {"Origin: http://a", "Access-Control-Request-Method: POST",
                                 "Access-Control-Request-Headers: authorization, content-type"});
  EXPECT_EQ(asked.status, 204);
  EXPECT_EQ(asked.Header("access-control-allow-methods"), "POST, OPTIONS");
  EXPECT_EQ(asked.Header("access-control-allow-headers"), "authorization, content-type");

  ServerOptions options = TestOptions();
  options.allowed_origins = {"http://good"};
  const Rig some(options);
  const TestAnswer good = Call(some.port, "GET", "/load", "", {"Origin: http://good"});
  EXPECT_EQ(good.Header("access-control-allow-origin"), "http://good");
  EXPECT_EQ(good.Header("vary"), "Origin");
  EXPECT_EQ(Call(some.port, "GET", "/load", "", {"Origin: http://bad"})
                .Header("access-control-allow-origin"),
            "");
}

TEST(Server, HealthTellsOfAHangAndOfItsEnd) {
  ServerOptions options = TestOptions();
  options.stall_seconds = 0.05;
  const Rig rig(options);
  const TestAnswer well = Call(rig.port, "GET", "/health");
  EXPECT_EQ(well.status, 200);
  EXPECT_EQ(well.body, "");
  rig.engine->Hold();
  TestClient client(rig.port);
  client.Send("POST", "/v1/completions", R"({"prompt": "hello", "max_tokens": 4})");
  EXPECT_TRUE(Eventually([&] { return Call(rig.port, "GET", "/health").status == 503; }));
  ExpectError(Call(rig.port, "GET", "/health"), 503, "no step");
  EXPECT_EQ(Call(rig.port, "GET", "/ping").status, 503);
  EXPECT_EQ(Call(rig.port, "GET", "/health/ready").status, 503);
  EXPECT_EQ(Call(rig.port, "GET", "/health/live").status, 200);
  const TestAnswer progress = Call(rig.port, "GET", "/health/progress");
  EXPECT_EQ(progress.status, 503);
  EXPECT_EQ(progress.Json()["has_work"], true);
  EXPECT_GT(progress.Json()["seconds_without_progress"].get<double>(), 0.05);
  rig.engine->Release();
  EXPECT_EQ(client.ReadAnswer().status, 200);
  EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
  EXPECT_EQ(Call(rig.port, "GET", "/health").status, 200);
  EXPECT_EQ(Call(rig.port, "GET", "/health/progress").Json()["status"], "ok");
}

TEST(Server, AnEngineThatDiesSilentlyEndsItsCalls) {
  const Rig rig;
  rig.engine->Hold();
  TestClient whole(rig.port);
  whole.Send("POST", "/v1/completions", R"({"prompt": "hello"})");
  TestClient streamed(rig.port);
  streamed.Send("POST", "/v1/completions", R"({"prompt": "hello", "stream": true})");
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 2; }));
  rig.engine->Die(Error(ErrorCode::kUnavailable, "the device is gone"));
  ExpectError(Call(rig.port, "GET", "/health"), 503, "the device is gone");
  ExpectError(whole.ReadAnswer(), 503, "the device is gone");
  const std::vector<json> events = EventsOf(streamed.ReadAnswer().body);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["error"]["code"], 503);
  ExpectError(Post(rig.port, "/v1/completions", {{"prompt", "x"}}), 503, "the device is gone");
}

TEST(Server, MalformedCallsAreTheClientsFault) {
  ServerOptions options = TestOptions();
  options.http.max_body_bytes = 1 << 20;
  const Rig rig(options);
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string("\xff\xfe"), std::string("{\"prompt\": \"\xc3\x28\"}"), deep,
        "{\"prompt\": " + deep + "}", std::string(R"({"prompt": 3})"),
        std::string(R"({"prompt": "x", "n": 0})"), std::string(R"({"prompt": "x", "n": 1e99})"),
        std::string(R"({"prompt": "x", "max_tokens": -1})"), std::string(R"({"prompt": [-1]})"),
        std::string(R"({"prompt": [999999999]})"), std::string(R"({"prompt": []})"),
        std::string(R"({"prompt": "x", "temperature": -2})")}) {
    for (const std::string path : {"/v1/completions", "/v1/chat/completions", "/tokenize"}) {
      const TestAnswer answer = Call(rig.port, "POST", path, body);
      if (path == "/tokenize" && answer.status == 200) continue;
      EXPECT_EQ(answer.status, 400) << path << " " << body.substr(0, 80) << answer.body;
      EXPECT_EQ(answer.Json()["error"]["code"], 400) << answer.body;
    }
  }
  ExpectError(Post(rig.port, "/v1/completions", {{"prompt", "x"}, {"model", "gpt"}}), 404, "gpt");
  ExpectError(Post(rig.port, "/detokenize", {{"tokens", "a"}}), 400, "a JSON string");
  // What a client wrote is quoted at a bounded length.
  const std::string much(500000, 'x');
  const json chat = {
      {"messages", {{{"role", "user"}, {"content", {{{"type", much}, {"text", "a"}}}}}}}};
  for (const TestAnswer& answer :
       {Post(rig.port, "/v1/completions", {{"prompt", "x"}, {"response_format", {{"type", much}}}}),
        Post(rig.port, "/v1/chat/completions", chat),
        Post(rig.port, "/v1/completions", {{"prompt", "x"}, {"temperature", much}})}) {
    EXPECT_EQ(answer.status, 400);
    EXPECT_LT(answer.body.size(), 2500U);
  }
  ExpectError(Call(rig.port, "POST", "/v1/completions", std::string((1 << 20) + 1, ' ')), 413, "");
  EXPECT_EQ(Post(rig.port, "/v1/completions", {{"prompt", "x"}}).status, 200);
  EXPECT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
}

TEST(Server, OptionsThatMakeNoSenseAreRefused) {
  const Rig rig;
  ServerOptions options = TestOptions();
  options.served_model_names.clear();
  EXPECT_FALSE(Server::Start(options, rig.frontend.get()));
  for (const char* name : {"", "a\nb", "a\x7f", "\xff\xfe"}) {
    options.served_model_names = {name};
    const auto refused = Server::Start(options, rig.frontend.get());
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("UTF-8"), std::string::npos);
  }
  options = TestOptions();
  options.num_text_threads = 0;
  EXPECT_FALSE(Server::Start(options, rig.frontend.get()));
  options = TestOptions();
  options.api_keys = {""};
  EXPECT_FALSE(Server::Start(options, rig.frontend.get()));
  options = TestOptions();
  options.http.port = rig.port;
  const auto taken = Server::Start(options, rig.frontend.get());
  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().message().find(std::to_string(rig.port)), std::string::npos);
}

}  // namespace
}  // namespace moebius::serve
