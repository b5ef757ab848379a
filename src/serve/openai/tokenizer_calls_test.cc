// /tokenize, /detokenize, /tokenizer_info, /v1/models, and errors.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "serve/openai/api_fixture_test.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

class TokenizerCallsTest : public testing::Test {
 protected:
  json Tokens(const json& body) const {
    const BodyResult answer = Tokenize(body.dump(), context_);
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? json::parse(*answer) : json();
  }

  const std::unique_ptr<frontend::PromptEncoder> encoder_ = DemoEncoder();
  const ApiContext context_ = ContextOf(*encoder_);
};

TEST_F(TokenizerCallsTest, ThereAndBack) {
  const std::string text = "Héllo <|im_end|> \u2028漢";
  const json tokens = Tokens({{"prompt", text}, {"return_token_strs", true}});
  EXPECT_EQ(tokens["tokens"], json(encoder_->tokenizer()->Encode(text, true)));
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(tokens["token_strs"].size(), tokens["tokens"].size());
  EXPECT_EQ(tokens["token_strs"][0], "H");
  EXPECT_EQ(tokens["max_model_len"], 512);
  EXPECT_EQ(Tokens({{"prompt", "x"}})["token_strs"], nullptr);
  EXPECT_EQ(Tokens({{"prompt", ""}, {"return_token_strs", true}})["token_strs"], json::array());
  const auto back = Detokenize(json{{"tokens", tokens["tokens"]}}.dump(), context_);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(json::parse(*back), (json{{"prompt", text}}));
}

TEST_F(TokenizerCallsTest, Conversations) {
  const json messages = {{{"role", "user"}, {"content", "Hi"}}};
  const std::string text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(Tokens({{"messages", messages}})["tokens"],
            json(encoder_->tokenizer()->Encode(text, false)));
  EXPECT_EQ(Tokens({{"messages", messages}, {"add_generation_prompt", false}})["tokens"],
            json(encoder_->tokenizer()->Encode("<|im_start|>user\nHi<|im_end|>\n", false)));
}

TEST_F(TokenizerCallsTest, SpecialTokensAroundATextIfWanted) {
  const auto encoder = GoldenEncoder("llama2", "x");
  const ApiContext context = ContextOf(*encoder);
  const auto with = Tokenize(R"({"prompt": "Hello"})", context);
  const auto without = Tokenize(R"({"prompt": "Hello", "add_special_tokens": false})", context);
  ASSERT_TRUE(with && without);
  EXPECT_EQ(json::parse(*with)["tokens"][0], 1) << "bos";
  EXPECT_EQ(json::parse(*with)["count"], json::parse(*without)["count"].get<int>() + 1);
}

TEST_F(TokenizerCallsTest, Refusals) {
  for (const char* body : {"", "[]", "{}", R"({"prompt": 5})", R"({"prompt": ["a"]})",
                           R"({"prompt": "a", "messages": []})", R"({"messages": []})",
                           R"({"prompt": "a", "add_special_tokens": "x"})"}) {
    const BodyResult answer = Tokenize(body, context_);
    ASSERT_FALSE(answer) << body;
    EXPECT_EQ(answer.error().status, 400);
  }
  for (const char* body : {"{}", R"({"tokens": 5})", R"({"tokens": ["a"]})", R"({"tokens": [-1]})",
                           R"({"tokens": [99999999]})"}) {
    const BodyResult answer = Detokenize(body, context_);
    ASSERT_FALSE(answer) << body;
    EXPECT_EQ(answer.error().param, "tokens");
  }
  EXPECT_EQ(Detokenize(R"({"tokens": [1], "model": "x"})", context_).error().status, 404);
}

TEST_F(TokenizerCallsTest, Info) {
  const json info = json::parse(*TokenizerInfo(context_));
  EXPECT_EQ(info["eos_token"], "<|im_end|>");
  EXPECT_EQ(info["eos_token_id"], 2);
  EXPECT_EQ(info["bos_token"], nullptr);
  EXPECT_EQ(info["bos_token_id"], nullptr);
  EXPECT_EQ(info["pad_token"], "<|endoftext|>");
  EXPECT_EQ(info["chat_template"], encoder_->chat_template()->source());
  EXPECT_EQ(info["model_max_length"], 512);
}

TEST_F(TokenizerCallsTest, WithoutATokenizer) {
  const frontend::PromptEncoder encoder(nullptr, MakeError(ErrorCode::kNotFound, "none"));
  ApiContext context;
  context.encoder = &encoder;
  context.limits.vocab_size = 10;
  context.limits.max_model_len = 20;
  EXPECT_EQ(Tokenize("{\"prompt\": \"a\"}", context).error().status, 404);
  EXPECT_EQ(Detokenize("{\"tokens\": [1]}", context).error().status, 404);
  EXPECT_EQ(TokenizerInfo(context).error().status, 404);
  EXPECT_EQ(ErrorOf(ParseCompletion(R"({"prompt": "a"})", context, "")).param, "prompt");
  EXPECT_EQ(ErrorOf(ParseChatCompletion(R"({"messages": [{"role": "user", "content": "a"}]})",
                                        context, ""))
                .status,
            400);
  const auto call =
      Completion(context, {{"prompt", {1, 2}}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 1}});
  frontend::GenerateOutput output;
  output.token_ids = {3};
  output.finish = engine::FinishReason::kLength;
  output.logprobs = {{3, "", -1.0f, 1, {}}};
  output.prompt_logprobs = {{2, "", -1.0f, 1, {}}};
  const json body = json::parse(call->Body({{output}}));
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"].size(), 3u);
}

TEST_F(TokenizerCallsTest, ModelCards) {
  const json list = json::parse(Models(context_, "/models/demo", 17));
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  const json& card = list["data"][0];
  EXPECT_EQ(card["id"], "demo");
  EXPECT_EQ(card["object"], "model");
  EXPECT_EQ(card["created"], 17);
  EXPECT_EQ(card["root"], "/models/demo");
  EXPECT_EQ(card["parent"], nullptr);
  EXPECT_EQ(card["max_model_len"], 512);
  EXPECT_EQ(card["permission"].size(), 1u);
  EXPECT_EQ(json::parse(*Model("alias", context_, "r", 17))["id"], "alias");
  EXPECT_EQ(Model("other", context_, "r", 17).error().status, 404);
}

TEST(ApiErrors, ByTheErrorsCode) {
  struct Case {
    ErrorCode code;
    int status;
    const char* type;
  };
  for (const Case& c : {Case{ErrorCode::kInvalidArgument, 400, "BadRequestError"},
                        Case{ErrorCode::kNotFound, 404, "NotFoundError"},
                        Case{ErrorCode::kUnsupported, 501, "NotImplementedError"},
                        Case{ErrorCode::kUnavailable, 503, "ServiceUnavailableError"},
                        Case{ErrorCode::kDeadline, 504, "GatewayTimeoutError"},
                        Case{ErrorCode::kInternal, 500, "InternalServerError"}}) {
    const ApiError error = ToApiError(Error(c.code, "top_p is 3, expected \"less\"\xFF"));
    EXPECT_EQ(error.status, c.status);
    EXPECT_EQ(error.retry_after_s.has_value(), c.status == 503);
    const json body = json::parse(ErrorBody(error))["error"];
    EXPECT_EQ(body["type"], c.type);
    EXPECT_EQ(body["code"], c.status);
    EXPECT_EQ(body["message"], "top_p is 3, expected \"less\"\uFFFD");
    EXPECT_EQ(body["param"], c.status == 400 ? json("top_p") : json(nullptr));
  }
}

}  // namespace
}  // namespace moebius::serve
