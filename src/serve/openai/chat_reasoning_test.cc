// Reasoning in chat's answers: the tags of models that think, whole and streamed.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "serve/openai/api_fixture_test.h"
#include "serve/openai/reasoning.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

constexpr char kPlain[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
constexpr char kOpens[] = "{{ messages[0].content }}<|im_start|>assistant\n<think>\n";

// The texts of a stream put together.
struct Joined {
  std::string reasoning;
  std::string content;
};

Joined Join(const std::vector<json>& events) {
  Joined joined;
  for (const json& event : events) {
    if (event["choices"].empty()) continue;
    const json& delta = event["choices"][0]["delta"];
    EXPECT_EQ(delta.value("reasoning", ""), delta.value("reasoning_content", ""));
    joined.reasoning += delta.value("reasoning", "");
    joined.content += delta.value("content", "");
  }
  return joined;
}

class ChatReasoningTest : public testing::Test {
 protected:
  // The qwen style has <think> and </think> as tokens; the demo spells them.
  ChatReasoningTest() {
    for (const char* source : {kPlain, kOpens}) {
      encoders_.push_back(GoldenEncoder("qwen", source));
      encoders_.push_back(EncoderWith(source));
    }
  }
  ApiContext Context(size_t encoder) const {
    ApiContext context = ContextOf(*encoders_[encoder]);
    context.reasoning_parser = "auto";
    return context;
  }
  std::vector<std::unique_ptr<frontend::PromptEncoder>> encoders_;
};

TEST_F(ChatReasoningTest, WholeAndStreamedAgree) {
  for (size_t e = 0; e < encoders_.size(); ++e) {
    const bool opens = e >= 2;
    const ApiContext context = Context(e);
    const frontend::GenerateOutput answer =
        Answer(*encoders_[e], std::string(opens ? "" : "<think>") + "so so</think>\n\nyes!");
    const json body = json::parse(Chat(context, json::object())->Body({{answer}}));
    const json& message = body["choices"][0]["message"];
    EXPECT_EQ(message["reasoning"], "so so");
    EXPECT_EQ(message["reasoning_content"], "so so");
    EXPECT_EQ(message["content"], "\n\nyes!");
    const int64_t thought = body["usage"]["completion_tokens_details"]["reasoning_tokens"];
    const auto num_tokens = static_cast<int64_t>(answer.token_ids.size());
    const auto behind =
        static_cast<int64_t>(encoders_[e]->tokenizer()->Encode("\n\nyes!", false).size());
    // A token may hold the end of the tag and what follows.
    EXPECT_GE(thought, num_tokens - behind - 1) << e;
    EXPECT_LE(thought, num_tokens - behind + 1) << e;

    const auto call =
        Chat(context, {{"stream", true}, {"stream_options", {{"include_usage", true}}}});
    const std::vector<json> events = Events(Stream(*call, *encoders_[e], answer));
    const Joined joined = Join(events);
    EXPECT_EQ(joined.reasoning, "so so");
    EXPECT_EQ(joined.content, "\n\nyes!");
    EXPECT_EQ(events.back()["usage"]["completion_tokens_details"]["reasoning_tokens"], thought);
  }
}

TEST_F(ChatReasoningTest, TokensAreCountedExactlyWhereTagsAreTokens) {
  const frontend::GenerateOutput answer = Answer(*encoders_[0], "<think>so so</think>\n\nyes!");
  const json body = json::parse(Chat(Context(0), json::object())->Body({{answer}}));
  const auto inside = encoders_[0]->tokenizer()->Encode("so so", false).size();
  EXPECT_EQ(body["usage"]["completion_tokens_details"]["reasoning_tokens"], inside + 2);
}

TEST_F(ChatReasoningTest, NoAnswerBehindTheReasoning) {
  const frontend::GenerateOutput answer = Answer(*encoders_[0], "<think>cut off");
  const json message =
      json::parse(Chat(Context(0), json::object())->Body({{answer}}))["choices"][0]["message"];
  EXPECT_EQ(message["content"], nullptr);
  EXPECT_EQ(message["reasoning"], "cut off");
}

TEST_F(ChatReasoningTest, NoReasoning) {
  const frontend::GenerateOutput answer = Answer(*encoders_[0], "plain <think>");
  json message =
      json::parse(Chat(Context(0), json::object())->Body({{answer}}))["choices"][0]["message"];
  EXPECT_EQ(message["content"], "plain <think>");
  EXPECT_EQ(message["reasoning"], nullptr);
  const Joined joined =
      Join(Events(Stream(*Chat(Context(0), {{"stream", true}}), *encoders_[0], answer)));
  EXPECT_EQ(joined.content, "plain <think>");
  EXPECT_EQ(joined.reasoning, "");
}

TEST_F(ChatReasoningTest, WithoutAParserTagsAreText) {
  ApiContext context = Context(0);
  context.reasoning_parser = "";
  const frontend::GenerateOutput answer = Answer(*encoders_[0], "<think>a</think>b");
  const json body = json::parse(Chat(context, json::object())->Body({{answer}}));
  EXPECT_EQ(body["choices"][0]["message"]["content"], "<think>a</think>b");
  EXPECT_FALSE(body["choices"][0]["message"].contains("reasoning"));
  EXPECT_FALSE(body["usage"].contains("completion_tokens_details"));
}

TEST_F(ChatReasoningTest, NotShownIfNotWanted) {
  const frontend::GenerateOutput answer = Answer(*encoders_[0], "<think>a</think>b");
  const json wish = {{"include_reasoning", false}};
  const json body = json::parse(Chat(Context(0), wish)->Body({{answer}}));
  EXPECT_EQ(body["choices"][0]["message"]["content"], "b");
  EXPECT_EQ(body["choices"][0]["message"]["reasoning"], nullptr);
  const auto call = Chat(Context(0), {{"include_reasoning", false}, {"stream", true}});
  const Joined joined = Join(Events(Stream(*call, *encoders_[0], answer)));
  EXPECT_EQ(joined.content, "b");
  EXPECT_EQ(joined.reasoning, "");
}

}  // namespace
}  // namespace moebius::serve
