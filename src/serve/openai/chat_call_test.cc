#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "serve/openai/api_fixture_test.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

class ChatCallTest : public testing::Test {
 protected:
  std::unique_ptr<ApiCall> Parse(json body = json::object()) const {
    return Chat(context_, std::move(body));
  }
  std::string Prompt(const ApiCall& call) const {
    return encoder_->tokenizer()->Decode(PromptIds(call), false);
  }

  const std::unique_ptr<frontend::PromptEncoder> encoder_ = DemoEncoder();
  ApiContext context_ = ContextOf(*encoder_);
};

TEST_F(ChatCallTest, AWholeAnswer) {
  const auto call = Parse();
  EXPECT_FALSE(call->is_stream());
  EXPECT_EQ(call->id().rfind("chatcmpl-", 0), 0u);
  ASSERT_EQ(call->requests().size(), 1u);
  EXPECT_EQ(Prompt(*call), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(call->requests()[0].sampling.max_tokens, std::nullopt) << "the rest of the context";

  frontend::GenerateOutput answer = Answer(*encoder_, "Hello \"you\"\n");
  answer.finish = engine::FinishReason::kStop;
  answer.usage.num_cached_tokens = 3;
  const int64_t created = json::parse(call->Body({{answer}}))["created"];
  EXPECT_GT(created, 1'700'000'000);
  const int64_t num_prompt = PromptIds(*call).size();
  const int64_t num_output = answer.token_ids.size();
  const json expected = {
      {"id", call->id()},
      {"object", "chat.completion"},
      {"created", created},
      {"model", "demo"},
      {"choices",
       {{{"index", 0},
         {"message", {{"role", "assistant"}, {"content", "Hello \"you\"\n"}, {"refusal", nullptr}}},
         {"logprobs", nullptr},
         {"finish_reason", "stop"},
         {"stop_reason", nullptr}}}},
      {"usage",
       {{"prompt_tokens", num_prompt},
        {"completion_tokens", num_output},
        {"total_tokens", num_prompt + num_output},
        {"prompt_tokens_details", {{"cached_tokens", 3}}}}}};
  EXPECT_EQ(json::parse(Parse()->Body({{answer}}))["choices"], expected["choices"]);
  json body = json::parse(Parse({{"request_id", "abc"}})->Body({{answer}}));
  EXPECT_EQ(body["id"], "chatcmpl-abc");
  body["id"] = call->id();
  body["created"] = created;
  EXPECT_EQ(body, expected);
}

TEST_F(ChatCallTest, AStream) {
  const auto call = Parse({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  EXPECT_TRUE(call->is_stream());
  const frontend::GenerateOutput answer = Answer(*encoder_, "One two\u2028three, é.");
  const std::string stream = Stream(*call, *encoder_, answer);
  EXPECT_EQ(stream.find("\u2028"), std::string::npos) << "some clients end lines there";
  const std::vector<json> events = Events(stream);
  ASSERT_EQ(events.size(), answer.token_ids.size() + 2) << "role, one a token, usage";
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["id"], call->id());
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(events[i]["model"], "demo");
    if (i + 1 == events.size()) break;
    const json& choice = events[i]["choices"][0];
    EXPECT_EQ(choice["index"], 0);
    EXPECT_EQ(choice["delta"].contains("role"), i == 0);
    EXPECT_EQ(choice["finish_reason"], i + 2 == events.size() ? json("length") : json(nullptr));
    EXPECT_FALSE(events[i].contains("usage"));
    text += choice["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(text, answer.text);
  EXPECT_EQ(events.back()["choices"], json::array());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], answer.token_ids.size());
}

TEST_F(ChatCallTest, TheRoleComesWithTheFirstTokenAndAnEndWithTheLast) {
  const auto call = Parse({{"stream", true}});
  frontend::GenerateOutput output;
  EXPECT_EQ(call->OnDelta(0, {}, output), "") << "no token has come";
  const std::vector<TokenId> half = {5};
  output.token_ids = half;
  const std::string first = call->OnDelta(0, {"", half, {}}, output);
  EXPECT_NE(first.find(R"("role":"assistant","content":"")"), std::string::npos) << first;
  EXPECT_EQ(std::count(first.begin(), first.end(), '\n'), 4) << "two events";
  output.text = "ab";
  output.token_ids = {5, 6};
  output.finish = engine::FinishReason::kStop;
  EXPECT_EQ(call->OnDelta(0, {"ab", std::span(output.token_ids).last(1), {}}, output), "");
  const std::string last = call->OnFinish(0, output);
  EXPECT_NE(last.find(R"("content":"ab")"), std::string::npos) << last;
  EXPECT_NE(last.find(R"("finish_reason":"stop")"), std::string::npos) << last;
  EXPECT_EQ(call->OnEnd({}), "data: [DONE]\n\n");
}

TEST_F(ChatCallTest, AnErrorOnTheWay) {
  const auto call = Parse({{"stream", true}});
  ApiError error;
  error.status = 500;
  error.message = "rank 3 died";
  const std::vector<json> events = Events(call->OnError(error));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0], json::parse(R"({"error": {"message": "rank 3 died",
      "type": "InternalServerError", "param": null, "code": 500}})"));
}

TEST_F(ChatCallTest, SeveralChoices) {
  const auto call = Parse({{"n", 3}, {"seed", -7}, {"stream", true}});
  ASSERT_EQ(call->requests().size(), 3u);
  EXPECT_EQ(*call->requests()[0].sampling.seed, static_cast<uint64_t>(-7));
  EXPECT_EQ(*call->requests()[2].sampling.seed, static_cast<uint64_t>(-5)) << "not the same thrice";
  const frontend::GenerateOutput answer = Answer(*encoder_, "One two three");
  const auto events = Events(Stream(*call, *encoder_, answer));
  std::vector<std::string> texts(3);
  int num_ends = 0;
  for (const json& event : events) {
    const json& choice = event["choices"][0];
    texts[choice["index"]] += choice["delta"]["content"].get<std::string>();
    num_ends += choice["finish_reason"].is_null() ? 0 : 1;
  }
  EXPECT_EQ(texts, std::vector<std::string>(3, answer.text));
  EXPECT_EQ(num_ends, 3);

  const json body = json::parse(Parse({{"n", 3}})->Body({{answer, answer, answer}}));
  ASSERT_EQ(body["choices"].size(), 3u);
  EXPECT_EQ(body["choices"][2]["index"], 2);
  EXPECT_EQ(body["usage"]["prompt_tokens"], PromptIds(*call).size()) << "shared, not thrice";
  EXPECT_EQ(body["usage"]["completion_tokens"], 3 * answer.token_ids.size());
}

TEST_F(ChatCallTest, UsageOnEveryChunk) {
  const auto call =
      Parse({{"stream", true},
             {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}}});
  const frontend::GenerateOutput answer = Answer(*encoder_, "One two three");
  const auto events = Events(Stream(*call, *encoder_, answer));
  for (size_t i = 0; i < events.size(); ++i) {
    const json& usage = events[i]["usage"];
    const size_t expected = std::min(std::max<size_t>(i, 1), answer.token_ids.size());
    EXPECT_EQ(usage["completion_tokens"], expected) << i;
    EXPECT_EQ(usage["prompt_tokens"], PromptIds(*call).size());
    EXPECT_EQ(usage["total_tokens"], PromptIds(*call).size() + expected);
  }
}

TEST_F(ChatCallTest, Logprobs) {
  const json wish = {{"logprobs", true}, {"top_logprobs", 2}};
  frontend::GenerateOutput answer = Answer(*encoder_, "é!");
  answer.logprobs = LogprobsOf(*encoder_, answer.token_ids, 3);
  answer.logprobs[0].bytes = "\xC3";  // half a character
  answer.logprobs[0].logprob = -std::numeric_limits<float>::infinity();
  const auto call = Parse(wish);
  EXPECT_EQ(call->requests()[0].sampling.num_logprobs, 2);
  const json content = json::parse(call->Body({{answer}}))["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), answer.token_ids.size());
  EXPECT_EQ(content[0]["token"], "\uFFFD");
  EXPECT_EQ(content[0]["bytes"], json({0xC3}));
  EXPECT_EQ(content[0]["logprob"], -9999.0);
  ASSERT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content.back()["token"], "!");
  EXPECT_EQ(content.back()["top_logprobs"][0]["token"], "!");
  EXPECT_EQ(content.back()["top_logprobs"][1]["logprob"], -1.5);

  json streamed = json::array();
  json stream_wish = wish;
  stream_wish["stream"] = true;
  for (const json& event : Events(Stream(*Parse(stream_wish), *encoder_, answer))) {
    const json& logprobs = event["choices"][0]["logprobs"];
    if (!logprobs.is_null())
      streamed.insert(streamed.end(), logprobs["content"].begin(), logprobs["content"].end());
  }
  EXPECT_EQ(streamed, content);

  json ids = wish;
  ids["return_tokens_as_token_ids"] = true;
  const json named = json::parse(Parse(ids)->Body({{answer}}))["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(named[0]["token"], "token_id:" + std::to_string(answer.token_ids[0]));
  EXPECT_EQ(Parse({{"logprobs", true}})->requests()[0].sampling.num_logprobs, 0);
  EXPECT_EQ(Parse({{"logprobs", false}, {"top_logprobs", 0}})->requests()[0].sampling.num_logprobs,
            -1);
}

TEST_F(ChatCallTest, TokenIdsAndPromptLogprobs) {
  frontend::GenerateOutput answer = Answer(*encoder_, "One two");
  auto call = Parse({{"return_token_ids", true}, {"prompt_logprobs", 1}});
  const std::vector<TokenId> prompt = PromptIds(*call);
  answer.prompt_logprobs =
      LogprobsOf(*encoder_, std::vector<TokenId>(prompt.begin() + 1, prompt.end()), 2);
  const json body = json::parse(call->Body({{answer}}));
  EXPECT_EQ(body["prompt_token_ids"], json(prompt));
  EXPECT_EQ(body["choices"][0]["token_ids"], json(answer.token_ids));
  EXPECT_EQ(body["prompt_logprobs"].size(), prompt.size());
  EXPECT_TRUE(body["prompt_logprobs"][0].is_null());
  const json& second = body["prompt_logprobs"][1];
  EXPECT_EQ(second[std::to_string(prompt[1])]["rank"], 1);

  call = Parse({{"return_token_ids", true}, {"stream", true}});
  const auto events = Events(Stream(*call, *encoder_, answer));
  EXPECT_EQ(events[0]["prompt_token_ids"], json(prompt));
  json streamed = json::array();
  for (size_t i = 1; i < events.size(); ++i) {
    for (const json& id : events[i]["choices"][0]["token_ids"]) streamed.push_back(id);
  }
  EXPECT_EQ(streamed, json(answer.token_ids));
}

TEST_F(ChatCallTest, WhatEndedIt) {
  frontend::GenerateOutput answer = Answer(*encoder_, "x");
  answer.finish = engine::FinishReason::kStop;
  answer.stop_token = 2;
  const auto choice = [&](const json& body) {
    return json::parse(Parse(body)->Body({{answer}}))["choices"][0];
  };
  EXPECT_EQ(choice(json::object())["stop_reason"], nullptr) << "the model's own end";
  EXPECT_EQ(choice({{"stop_token_ids", {2}}})["stop_reason"], 2);
  answer.stop_token = std::nullopt;
  answer.stop_string = "\nQ:";
  EXPECT_EQ(choice({{"stop", "\nQ:"}})["stop_reason"], "\nQ:");
  answer.finish = engine::FinishReason::kCancelled;
  EXPECT_EQ(choice(json::object())["finish_reason"], "abort");
}

}  // namespace
}  // namespace moebius::serve
