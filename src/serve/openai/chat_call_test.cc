#include <gtest/gtest.h>

#include "serve/openai/api_fixture_test.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

class ChatCallTest : public testing::Test {
 protected:
  static std::unique_ptr<ApiCall> Parse(const ApiContext& context, json body) {
    if (!body.contains("messages")) body["messages"] = {{{"role", "user"}, {"content", "Hi"}}};
    CallResult call = ParseChatCompletion(body.dump(), context, "");
    EXPECT_TRUE(call) << call.error().message;
    return call ? *std::move(call) : nullptr;
  }
  std::unique_ptr<ApiCall> Parse(json body = json::object()) const {
    return Parse(context_, std::move(body));
  }
  std::string Prompt(const ApiCall& call) const {
    return encoder_->tokenizer()->Decode(std::get<std::vector<TokenId>>(call.requests()[0].prompt),
                                         false);
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
  const int64_t num_prompt = std::get<std::vector<TokenId>>(call->requests()[0].prompt).size();
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

}  // namespace
}  // namespace moebius::serve
