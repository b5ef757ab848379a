#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "serve/openai/api_fixture_test.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

class CompletionCallTest : public testing::Test {
 protected:
  std::unique_ptr<ApiCall> Parse(const json& body) const { return Completion(context_, body); }
  std::vector<TokenId> Encode(const std::string& text) const {
    return encoder_->tokenizer()->Encode(text, true);
  }
  // What an engine gives for a prompt whose tokens are to be scored.
  frontend::GenerateOutput Scored(const std::vector<TokenId>& prompt, const std::string& text,
                                  int num_top) const {
    frontend::GenerateOutput answer = Answer(*encoder_, text);
    answer.logprobs = LogprobsOf(*encoder_, answer.token_ids, num_top);
    answer.prompt_logprobs =
        LogprobsOf(*encoder_, std::vector<TokenId>(prompt.begin() + 1, prompt.end()), num_top);
    return answer;
  }

  const std::unique_ptr<frontend::PromptEncoder> encoder_ = DemoEncoder();
  ApiContext context_ = ContextOf(*encoder_);
};

TEST_F(CompletionCallTest, AWholeAnswer) {
  const auto call = Parse({{"prompt", "One two"}, {"model", "alias"}});
  EXPECT_EQ(call->id().rfind("cmpl-", 0), 0u);
  EXPECT_EQ(PromptIds(*call), Encode("One two"));
  EXPECT_EQ(call->requests()[0].sampling.max_tokens, 16);
  const frontend::GenerateOutput answer = Answer(*encoder_, " three");
  json body = json::parse(call->Body({{answer}}));
  EXPECT_TRUE(body["created"].is_number_integer());
  body.erase("created");
  const size_t num_prompt = Encode("One two").size();
  EXPECT_EQ(body, (json{{"id", call->id()},
                        {"object", "text_completion"},
                        {"model", "demo"},
                        {"choices",
                         {{{"index", 0},
                           {"text", " three"},
                           {"logprobs", nullptr},
                           {"finish_reason", "length"},
                           {"stop_reason", nullptr}}}},
                        {"usage",
                         {{"prompt_tokens", num_prompt},
                          {"completion_tokens", answer.token_ids.size()},
                          {"total_tokens", num_prompt + answer.token_ids.size()},
                          {"prompt_tokens_details", {{"cached_tokens", 0}}}}}}));
}

TEST_F(CompletionCallTest, AStream) {
  const auto call =
      Parse({{"prompt", "One"}, {"stream", true}, {"stream_options", {{"include_usage", true}}}});
  const frontend::GenerateOutput answer = Answer(*encoder_, " two three four");
  const auto events = Events(Stream(*call, *encoder_, answer));
  ASSERT_EQ(events.size(), answer.token_ids.size() + 1) << "one a token, and usage";
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    EXPECT_EQ(events[i]["object"], "text_completion");
    text += events[i]["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, answer.text);
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(events.back()["choices"], json::array());
  EXPECT_EQ(events.back()["usage"]["total_tokens"], answer.token_ids.size() + 1);
}

TEST_F(CompletionCallTest, EveryKindOfPrompt) {
  const std::vector<TokenId> ids = Encode("Hello you");
  EXPECT_EQ(PromptIds(*Parse({{"prompt", ids}})), ids);
  EXPECT_EQ(PromptIds(*Parse({{"prompt", {"Hello you"}}})), ids);
  const auto texts = Parse({{"prompt", {"One", "Hello you"}}, {"n", 2}});
  ASSERT_EQ(texts->requests().size(), 4u);
  EXPECT_EQ(PromptIds(*texts, 1), Encode("One"));
  EXPECT_EQ(PromptIds(*texts, 2), ids);
  const auto lists = Parse({{"prompt", {ids, {5}}}});
  EXPECT_EQ(PromptIds(*lists, 0), ids);
  EXPECT_EQ(PromptIds(*lists, 1), std::vector<TokenId>{5});
  const frontend::GenerateOutput answer = Answer(*encoder_, "x");
  const json body = json::parse(texts->Body({{answer, answer, answer, answer}}));
  EXPECT_EQ(body["choices"][3]["index"], 3);
  EXPECT_EQ(body["usage"]["prompt_tokens"], ids.size() + Encode("One").size());
  EXPECT_EQ(PromptIds(*Parse({{"prompt", ids}, {"truncate_prompt_tokens", 1}})),
            std::vector<TokenId>{ids.back()});
  EXPECT_EQ(
      PromptIds(*Parse({{"prompt", std::vector<TokenId>(600, 5)}, {"truncate_prompt_tokens", -1}}))
          .size(),
      512u - 16);
}

// lm-eval's loglikelihood: the list of log probabilities has one entry a token of prompt and
// output, and it takes [number of context tokens : -1].
TEST_F(CompletionCallTest, ScoresAsLmEvalReadsThem) {
  const std::vector<TokenId> prompt = Encode("One two three");
  const json wish = {{"prompt", {prompt}}, {"echo", true},     {"logprobs", 1},
                     {"max_tokens", 1},    {"temperature", 0}, {"seed", 1234}};
  const auto call = Parse(wish);
  EXPECT_EQ(call->requests()[0].sampling.num_prompt_logprobs, 1);
  frontend::GenerateOutput answer = Scored(prompt, "!", 1);
  answer.prompt_logprobs.back().top[0] = {7, "seven", -0.25f};  // better than the one that stood
  const json choice = json::parse(call->Body({{answer}}))["choices"][0];
  EXPECT_EQ(choice["text"], "One two three!");
  const json& logprobs = choice["logprobs"];
  const size_t count = prompt.size() + 1;
  for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
    EXPECT_EQ(logprobs[list].size(), count) << list;
  }
  EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
  for (size_t i = 1; i < count; ++i) {
    const json& top = logprobs["top_logprobs"][i];
    const std::string token = logprobs["tokens"][i];
    ASSERT_TRUE(top.contains(token)) << top;
    EXPECT_EQ(top[token], logprobs["token_logprobs"][i]);
    const bool is_best = i != prompt.size() - 1;
    EXPECT_EQ(top.size(), is_best ? 1u : 2u) << "the best and the token itself";
  }
  json stream_wish = wish;
  stream_wish["stream"] = true;
  const auto events = Events(Stream(*Parse(stream_wish), *encoder_, answer));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["choices"][0], choice);
}

TEST_F(CompletionCallTest, NothingToGenerate) {
  const auto call =
      Parse({{"prompt", "One two"}, {"echo", true}, {"logprobs", 0}, {"max_tokens", 0}});
  EXPECT_EQ(call->requests()[0].sampling.max_tokens, 1);
  const std::vector<TokenId> prompt = Encode("One two");
  frontend::GenerateOutput answer = Scored(prompt, " three", 0);
  answer.finish = engine::FinishReason::kStop;
  answer.stop_token = 2;
  const json body = json::parse(call->Body({{answer}}));
  EXPECT_EQ(body["choices"][0]["text"], "One two");
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"].size(), prompt.size());
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);
  const auto stream =
      Parse({{"prompt", "One two"}, {"echo", true}, {"max_tokens", 0}, {"stream", true}});
  const auto events = Events(Stream(*stream, *encoder_, answer));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "One two");
}

TEST_F(CompletionCallTest, OffsetsCountCharacters) {
  const std::string prompt_text = "é漢字";
  const std::vector<TokenId> prompt = Encode(prompt_text);
  const auto call = Parse({{"prompt", prompt_text}, {"echo", true}, {"logprobs", 0}});
  frontend::GenerateOutput answer = Scored(prompt, "ü z", 0);
  // An end token that is no part of the text.
  answer.token_ids.push_back(2);
  answer.logprobs.push_back(LogprobsOf(*encoder_, {2}, 0)[0]);
  answer.finish = engine::FinishReason::kStop;
  answer.stop_token = 2;
  const json choice = json::parse(call->Body({{answer}}))["choices"][0];
  const json& offsets = choice["logprobs"]["text_offset"];
  std::vector<TokenId> all = prompt;
  all.insert(all.end(), answer.token_ids.begin(), answer.token_ids.end());
  ASSERT_EQ(offsets.size(), all.size());
  // The reference: a token stands at the character that holds its first byte.
  const std::string text = choice["text"];
  size_t byte = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto end = text.begin() + static_cast<ptrdiff_t>(std::min(byte + 1, text.size()));
    const auto begun = std::count_if(text.begin(), end, [](char c) { return (c & 0xC0) != 0x80; });
    EXPECT_EQ(offsets[i], byte < text.size() ? begun - 1 : begun) << i;
    byte += encoder_->tokenizer()->TokenBytes(all[i]).size();
  }
  EXPECT_EQ(choice["logprobs"]["tokens"].back(), "<|im_end|>");
}

TEST_F(CompletionCallTest, TokensThatLookAlikeAreAllThere) {
  const auto call = Parse({{"prompt", "x"}, {"logprobs", 3}});
  frontend::GenerateOutput answer = Answer(*encoder_, "a");
  answer.token_ids = {5};
  frontend::TokenLogprob logprob{5, "\xC3", -2.0f, 3, {}};
  logprob.top = {{6, "\xE6", -0.5f}, {7, "b", -1.0f}, {5, "\xC3", -2.0f}};
  answer.logprobs = {logprob};
  const json logprobs = json::parse(call->Body({{answer}}))["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"][0], "\uFFFD");
  EXPECT_EQ(logprobs["top_logprobs"][0],
            (json{{"\uFFFD", -2.0}, {"token_id:6", -0.5}, {"b", -1.0}}));
}

TEST_F(CompletionCallTest, TokensWithoutATokenizerAreNamedByTheirIds) {
  const frontend::PromptEncoder no_tokenizer{nullptr,
                                             MakeError(ErrorCode::kNotFound, "no template")};
  ApiContext context = context_;
  context.encoder = &no_tokenizer;
  const json body = {{"prompt", {5, 6}}, {"max_tokens", 1}, {"logprobs", 1}};
  const auto call = ParseCompletion(body.dump(), context, "");
  ASSERT_TRUE(call) << call.error().message;
  frontend::GenerateOutput answer;
  answer.token_ids = {5};
  answer.finish = engine::FinishReason::kLength;
  frontend::TokenLogprob logprob{5, "", -2.0f, 2, {}};
  logprob.top = {{6, "", -0.5f}};
  answer.logprobs = {logprob};
  const json logprobs = json::parse((*call)->Body({{answer}}))["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"][0], "token_id:5");
  EXPECT_EQ(logprobs["top_logprobs"][0], (json{{"token_id:5", -2.0}, {"token_id:6", -0.5}}));
}

TEST_F(CompletionCallTest, TokenIdsAndPromptLogprobs) {
  const std::vector<TokenId> prompt = Encode("One two");
  const auto call =
      Parse({{"prompt", "One two"}, {"return_token_ids", true}, {"prompt_logprobs", 2}});
  frontend::GenerateOutput answer = Scored(prompt, " x", 2);
  const json choice = json::parse(call->Body({{answer}}))["choices"][0];
  EXPECT_EQ(choice["prompt_token_ids"], json(prompt));
  EXPECT_EQ(choice["token_ids"], json(answer.token_ids));
  ASSERT_EQ(choice["prompt_logprobs"].size(), prompt.size());
  EXPECT_EQ(choice["prompt_logprobs"][0], nullptr);
  const TokenId second = prompt[1];
  EXPECT_EQ(choice["prompt_logprobs"][1][std::to_string(second)],
            (json{{"logprob", -0.5},
                  {"rank", 1},
                  {"decoded_token", encoder_->tokenizer()->TokenBytes(second)}}));
  EXPECT_EQ(choice["prompt_logprobs"][1][std::to_string(second + 1)]["rank"], 2);
}

}  // namespace
}  // namespace moebius::serve
