// What requests may say: each field reaches the engine's request, and what is wrong is named.
#include "serve/openai/call_fields.h"

#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>

#include "serve/openai/api_fixture_test.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

class CallFieldsTest : public testing::Test {
 protected:
  // The body of a minimal request of either endpoint with `members` added.
  static std::string Body(bool chat, const std::string& members) {
    const std::string prompt =
        chat ? R"("messages": [{"role": "user", "content": "Hi"}])" : R"("prompt": "Hi")";
    return "{" + prompt + (members.empty() ? "" : ", ") + members + "}";
  }
  CallResult Parse(bool chat, const std::string& members) const {
    const std::string body = Body(chat, members);
    return chat ? ParseChatCompletion(body, context_, "") : ParseCompletion(body, context_, "");
  }

  const std::unique_ptr<frontend::PromptEncoder> encoder_ = DemoEncoder();
  ApiContext context_ = ContextOf(*encoder_);
};

TEST_F(CallFieldsTest, SamplingReachesTheEngine) {
  for (const bool chat : {true, false}) {
    const CallResult call = Parse(chat, R"("temperature": 0, "top_p": 0.5, "top_k": 7,
        "min_p": 0.25, "repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 2,
        "seed": -9, "max_tokens": 9, "min_tokens": 3, "stop": ["a", "b", "c", "d", "e"],
        "stop_token_ids": [5], "ignore_eos": true, "include_stop_str_in_output": true,
        "skip_special_tokens": false, "logit_bias": {"5": 101, "6": -1}, "bad_words": ["no"],
        "allowed_token_ids": [5, 6], "cache_salt": "salt", "priority": -2, "prompt_logprobs": 3,
        "spaces_between_special_tokens": true, "user": "me", "never_heard_of": {"a": [1e300]})");
    ASSERT_TRUE(call) << call.error().message;
    const frontend::GenerateRequest& request = (*call)->requests()[0];
    const engine::SamplingParams& sampling = request.sampling;
    EXPECT_EQ(sampling.temperature, 0);
    EXPECT_EQ(sampling.top_p, 0.5f);
    EXPECT_EQ(sampling.top_k, 7);
    EXPECT_EQ(sampling.min_p, 0.25f);
    EXPECT_EQ(sampling.repetition_penalty, 1.5f);
    EXPECT_EQ(sampling.presence_penalty, -1);
    EXPECT_EQ(sampling.frequency_penalty, 2);
    EXPECT_EQ(sampling.seed, static_cast<uint64_t>(-9));
    EXPECT_EQ(sampling.max_tokens, 9);
    EXPECT_EQ(sampling.min_tokens, 3);
    EXPECT_EQ(request.stop.size(), 5u);
    EXPECT_EQ(sampling.stop_token_ids, std::vector<TokenId>{5});
    EXPECT_TRUE(sampling.ignore_eos);
    EXPECT_TRUE(request.include_stop_str_in_output);
    EXPECT_FALSE(request.skip_special_tokens);
    EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{5, 100}, {6, -1}}));
    EXPECT_EQ(sampling.allowed_token_ids, (std::vector<TokenId>{5, 6}));
    EXPECT_EQ(request.bad_words, std::vector<std::string>{"no"});
    EXPECT_EQ(request.cache_salt, "salt");
    EXPECT_EQ(request.priority, -2);
    EXPECT_EQ(sampling.num_prompt_logprobs, 3);
  }
}

TEST_F(CallFieldsTest, DefaultsOfTheServerAndNull) {
  context_.defaults.temperature = 0.6f;
  context_.defaults.top_p = 0.9f;
  const CallResult call = Parse(true, R"("temperature": null, "top_p": 1, "max_tokens": 5,
      "max_completion_tokens": 7, "n": null, "stop": null, "logprobs": null, "stream": null,
      "stream_options": null, "logit_bias": null, "response_format": null, "tools": null,
      "tool_choice": null, "seed": null, "model": null, "prompt_logprobs": null)");
  ASSERT_TRUE(call) << call.error().message;
  const engine::SamplingParams& sampling = (*call)->requests()[0].sampling;
  EXPECT_EQ(sampling.temperature, 0.6f);
  EXPECT_EQ(sampling.top_p, 1.0f);
  EXPECT_EQ(sampling.max_tokens, 7) << "the newer name counts";
  EXPECT_EQ(sampling.seed, std::nullopt);
  EXPECT_EQ(sampling.num_logprobs, -1);
}

TEST_F(CallFieldsTest, TheIdIsTheHeadersOrTheFields) {
  const std::string body = Body(true, R"("request_id": "field")");
  EXPECT_EQ((*ParseChatCompletion(body, context_, "header"))->id(), "chatcmpl-field");
  EXPECT_EQ((*ParseChatCompletion(body, context_, ""))->id(), "chatcmpl-field");
  EXPECT_EQ((*ParseChatCompletion(Body(true, R"("n": 1)"), context_, "header"))->id(),
            "chatcmpl-header");
  EXPECT_NE((*Parse(false, ""))->id(), (*Parse(false, ""))->id());
}

TEST_F(CallFieldsTest, ChoicesThatCouldNeverWaitTogetherAreAnError) {
  context_.limits.max_num_waiting = 2;
  EXPECT_TRUE(ParseChatCompletion(Body(true, R"("n": 2)"), context_, ""));
  const CallResult refused = ParseChatCompletion(Body(true, R"("n": 3)"), context_, "");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 400);
  EXPECT_EQ(refused.error().param, "n");
  EXPECT_NE(refused.error().message.find("no more than 2"), std::string::npos);
  EXPECT_EQ(refused.error().message.find("1 prompt with n = 3 are 3 choices"), 0U);
  EXPECT_NE(refused.error().message.find("(--max-num-waiting)"), std::string::npos);
}

struct Refusal {
  const char* members;
  const char* param;
  const char* words;  // in the message
};

TEST_F(CallFieldsTest, RefusalsNameTheField) {
  const Refusal both[] = {
      {R"("temperature": -1)", "temperature", "-1"},
      {R"("temperature": "hot")", "temperature", "hot"},
      {R"("temperature": 1e60)", "temperature", "1e+60"},
      {R"("top_p": 0)", "top_p", "0"},
      {R"("top_p": 1.5)", "top_p", "1.5"},
      {R"("top_k": -5)", "top_k", "-5"},
      {R"("min_p": 2)", "min_p", "2"},
      {R"("presence_penalty": 3)", "presence_penalty", "3"},
      {R"("repetition_penalty": 0)", "repetition_penalty", "0"},
      {R"("seed": 0.5)", "seed", "0.5"},
      {R"("seed": 99999999999999999999)", "seed", "whole number"},
      {R"("max_tokens": -3)", "max_tokens", "-3"},
      {R"("max_tokens": 1e30)", "max_tokens", "1e+30, expected a whole number from"},
      {R"("max_tokens": "all")", "max_tokens", "all"},
      {R"("max_tokens": 600)", "max_tokens", "512 tokens"},
      {R"("min_tokens": 9, "max_tokens": 5)", "min_tokens", "9"},
      {R"("n": 0)", "n", "0"},
      {R"("n": 5000)", "n", "5000"},
      {R"("best_of": 3)", "best_of", "3"},
      {R"("guided_json": {})", "guided_json", "not supported"},
      {R"("structured_outputs": {})", "structured_outputs", "not supported"},
      {R"("audio": {})", "audio", "not supported"},
      {R"("web_search_options": {})", "web_search_options", "not supported"},
      {R"("stop": [""])", "stop", "empty"},
      {R"("stop": [7])", "stop", "7"},
      {R"("stop_token_ids": [-1])", "stop_token_ids", "-1"},
      {R"("stop_token_ids": [100000])", "stop_token_ids", "100000"},
      {R"("logit_bias": {"x": 1})", "logit_bias", "token id"},
      {R"("logit_bias": [1])", "logit_bias", "object"},
      {R"("allowed_token_ids": [])", "allowed_token_ids", "empty"},
      {R"("bad_words": [""])", "bad_words", "empty"},
      {R"("cache_salt": "")", "cache_salt", "empty"},
      {R"("priority": 5000)", "priority", "5000"},
      {R"("truncate_prompt_tokens": 0)", "truncate_prompt_tokens", "0"},
      {R"("stream": "yes")", "stream", "yes"},
      {R"("stream_options": {"include_usage": true})", "stream_options", "stream"},
      {R"("stream": true, "stream_options": 5)", "stream_options", "object"},
      {R"("stream": true, "stream_options": {"include_usage": "x"})", "stream_options", "x"},
      {R"("stream": true, "prompt_logprobs": 1)", "prompt_logprobs", "stream"},
      {R"("prompt_logprobs": -1)", "prompt_logprobs", "-1"},
      {R"("prompt_logprobs": 21)", "prompt_logprobs", "21"},
      {R"("request_id": 5)", "request_id", "5"},
      {R"("response_format": {"type": "json_object"})", "response_format", "json_object"},
      {R"("response_format": {"type": "json_schema", "json_schema": {}})", "response_format",
       "json_schema"},
      {R"("response_format": "json")", "response_format", "type"},
      {R"("structured_outputs": {"regex": "a"})", "structured_outputs", "not supported"},
      {R"("guided_choice": ["a"])", "guided_choice", "not supported"},
      {R"("use_beam_search": true)", "use_beam_search", "not supported"},
      {R"("kv_transfer_params": {"a": 1})", "kv_transfer_params", "not supported"},
      {R"("logits_processors": ["x"])", "logits_processors", "not supported"},
      {R"("thinking_token_budget": 0)", "thinking_token_budget", "not supported"},
  };
  for (const bool chat : {true, false}) {
    for (const Refusal& r : both) {
      const ApiError error = ErrorOf(Parse(chat, r.members));
      EXPECT_EQ(error.status, 400) << r.members;
      EXPECT_EQ(error.param, r.param) << r.members << ": " << error.message;
      EXPECT_NE(error.message.find(r.words), std::string::npos) << error.message;
    }
  }
}

// The bounds of a float are no help to somebody who wrote a word.
TEST_F(CallFieldsTest, AWrongTypeIsToldWithoutTheBoundsOfTheRightOne) {
  for (const char* wrong : {R"("temperature": "x")", R"("max_tokens": [1])"}) {
    const std::string message = ErrorOf(Parse(true, wrong)).message;
    EXPECT_TRUE(message.ends_with("number")) << message;
  }
}

TEST_F(CallFieldsTest, RefusalsOfChat) {
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  const std::vector<std::array<std::string, 3>> cases = {
      {R"("top_logprobs": 2)", "top_logprobs", "logprobs"},
      {R"("logprobs": false, "top_logprobs": 2)", "top_logprobs", "logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs", "21"},
      {R"("logprobs": 2)", "logprobs", "true or false"},
      {R"("reasoning_effort": "zz")", "reasoning_effort", "low, medium, high"},
      {R"("stream": 0.5)", "stream", "true or false"},
      {R"("logprobs": true, "top_logprobs": -1)", "top_logprobs", "-1"},
      {R"("max_completion_tokens": 0)", "max_tokens", "0"},
      {R"("continue_final_message": true, "add_generation_prompt": true)", "continue_final_message",
       "add_generation_prompt"},
      {R"("chat_template": "{{ x }}")", "chat_template", "not supported"},
      {R"("chat_template_kwargs": [1])", "chat_template_kwargs", "object"},
      {R"("modalities": ["audio"])", "modalities", "text"},
      {R"("audio": {"voice": "x"})", "audio", "not supported"},
      {R"("tools": [])", "tools", "empty"},
      {R"("tools": 5)", "tools", "list"},
      {tools, "tools", "not supported"},
      {tools + R"(, "tool_choice": "auto")", "tools", "not supported"},
      {tools + R"(, "tool_choice": "required")", "tools", "not supported"},
      {tools + R"(, "tool_choice": {"type": "function", "function": {"name": "f"}})", "tools",
       "not supported"},
      {tools + R"(, "tool_choice": {"type": "function", "function": {"name": "g"}})", "tool_choice",
       "'g'"},
      {tools + R"(, "tool_choice": "sometimes")", "tool_choice", "none"},
      {R"("tool_choice": "auto")", "tool_choice", "without tools"},
      {R"("function_call": "auto")", "function_call", "not supported"},
  };
  for (const auto& [members, param, words] : cases) {
    const ApiError error = ErrorOf(Parse(true, members));
    EXPECT_EQ(error.status, 400) << members;
    EXPECT_EQ(error.param, param) << members << ": " << error.message;
    EXPECT_NE(error.message.find(words), std::string::npos) << error.message;
  }
}

TEST_F(CallFieldsTest, RefusalsOfCompletions) {
  const std::vector<std::array<std::string, 3>> cases = {
      {R"({})", "prompt", "missing"},
      {R"({"prompt": null})", "prompt", "missing"},
      {R"({"prompt": ""})", "prompt", "empty"},
      {R"({"prompt": []})", "prompt", "empty"},
      {R"({"prompt": [[]]})", "prompt", "prompt[0] is empty"},
      {R"({"prompt": ["a", ""]})", "prompt", "prompt[1] is empty"},
      {R"({"prompt": 5})", "prompt", "number"},
      {R"({"prompt": {"a": 1}})", "prompt", "object"},
      {R"({"prompt": [1, "a"]})", "prompt", "prompt[1]"},
      {R"({"prompt": ["a", 1]})", "prompt", "prompt[1]"},
      {R"({"prompt": [-1]})", "prompt", "-1"},
      {R"({"prompt": [1.5]})", "prompt", "1.5"},
      {R"({"prompt": [true]})", "prompt", "boolean"},
      {R"({"prompt": [1000000]})", "prompt", "1000000"},
      {R"({"prompt": [[1], [2, 18446744073709551615]]})", "prompt", "prompt[1][1]"},
      {R"({"prompt": ["a", "b"], "n": 1000})", "n", "2000"},
      {R"({"prompt": "a", "logprobs": 21})", "logprobs", "21"},
      {R"({"prompt": "a", "logprobs": -1})", "logprobs", "-1"},
      {R"({"prompt": "a", "max_tokens": 0})", "max_tokens", "0"},
      {R"({"prompt": "a", "suffix": "b"})", "suffix", "not supported"},
      {R"({"prompt": "a", "prompt_embeds": "b"})", "prompt_embeds", "not supported"},
  };
  for (const auto& [body, param, words] : cases) {
    const ApiError error = ErrorOf(ParseCompletion(body, context_, ""));
    EXPECT_EQ(error.status, 400) << body;
    EXPECT_EQ(error.param, param) << body << ": " << error.message;
    EXPECT_NE(error.message.find(words), std::string::npos) << error.message;
  }
}

TEST_F(CallFieldsTest, ListsAreBounded) {
  const auto longer = [](const char* name, size_t count, const json& item) {
    return "\"" + std::string(name) + "\": " + json(std::vector<json>(count, item)).dump();
  };
  const auto vocab_size = static_cast<size_t>(context_.limits.vocab_size);
  EXPECT_TRUE(Parse(true, longer("stop", 128, "x")));
  EXPECT_EQ(ErrorOf(Parse(true, longer("stop", 129, "x"))).param, "stop");
  EXPECT_EQ(ErrorOf(Parse(true, longer("stop_token_ids", 129, 5))).param, "stop_token_ids");
  EXPECT_EQ(ErrorOf(Parse(true, longer("allowed_token_ids", vocab_size + 1, 5))).param,
            "allowed_token_ids");
  EXPECT_EQ(ErrorOf(Parse(true, longer("bad_words", 20'000, "x"))).param, "bad_words");
}

TEST_F(CallFieldsTest, NeutralValuesPass) {
  for (const bool chat : {true, false}) {
    const CallResult call = Parse(chat, R"("response_format": {"type": "text"}, "best_of": 1,
        "tool_choice": "none", "suffix": "", "use_beam_search": false, "guided_json": null,
        "structured_outputs": null, "kv_transfer_params": {}, "logits_processors": [],
        "modalities": ["text"], "audio": null, "function_call": "none", "functions": [],
        "thinking_token_budget": null, "parallel_tool_calls": true)");
    EXPECT_TRUE(call) << call.error().message;
  }
  EXPECT_TRUE(Parse(true, R"("tools": [], "tool_choice": "none")"));
}

TEST_F(CallFieldsTest, TooLongNamesLimitPromptAndRequest) {
  const json body = {{"prompt", std::vector<int>(500, 5)}, {"max_tokens", 20}};
  const ApiError error = ErrorOf(ParseCompletion(body.dump(), context_, ""));
  EXPECT_EQ(error.param, "max_tokens");
  for (const char* fact : {"maximum context length is 512", "520 are requested",
                           "500 in the prompt", "20 for the output"}) {
    EXPECT_NE(error.message.find(fact), std::string::npos) << error.message;
  }
  const ApiError full =
      ErrorOf(ParseCompletion(json{{"prompt", std::vector<int>(512, 5)}}.dump(), context_, ""));
  EXPECT_EQ(full.param, "prompt");
  EXPECT_NE(full.message.find("512"), std::string::npos);
}

TEST_F(CallFieldsTest, AnUnknownModelIsNotFound) {
  const ApiError error = ErrorOf(Parse(true, R"("model": "gpt-5")"));
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(error.param, "model");
  const json body = json::parse(ErrorBody(error))["error"];
  EXPECT_EQ(body["type"], "NotFoundError");
  EXPECT_EQ(body["code"], 404);
  EXPECT_TRUE(Parse(true, R"("model": "")"));
  EXPECT_TRUE(Parse(true, R"("model": "alias")"));
}

}  // namespace
}  // namespace moebius::serve
