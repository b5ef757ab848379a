#include "frontend/frontend.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "frontend/fake_engine_test.h"

namespace moebius::frontend {
namespace {

using engine::FinishReason;

struct FrontendRig {
  explicit FrontendRig(Script script, bool with_tokenizer = true,
                       const std::string& chat_template = "")
      : fake(new FakeEngine(std::move(script))) {
    Result<text::ChatTemplate> parsed = MakeError(ErrorCode::kNotFound, "no template");
    if (!chat_template.empty()) parsed = text::ChatTemplate::FromSource(chat_template);
    frontend = std::make_unique<Frontend>(
        std::unique_ptr<engine::EngineClient>(fake),
        PromptEncoder(with_tokenizer ? MakeByteTokenizer() : nullptr, std::move(parsed)));
  }
  FakeEngine* fake;  // owned by frontend
  std::unique_ptr<Frontend> frontend;
};

TEST(Frontend, TextGoesInAndComesOutWhole) {
  const std::string answer = "Grüße, 世界 🌍!";
  FrontendRig rig({.tokens = Ids(answer)});
  std::string streamed;
  std::vector<TokenId> streamed_ids;
  const auto output = rig.frontend->Generate(TextRequest("hi"), [&](const Delta& delta) {
    streamed += delta.text;
    streamed_ids.insert(streamed_ids.end(), delta.tokens.begin(), delta.tokens.end());
    if (!delta.text.empty()) {
      EXPECT_NE(static_cast<unsigned char>(delta.text.front()) & 0xc0, 0x80) << "half a character";
    }
  });
  ASSERT_TRUE(output) << output.error().message();
  EXPECT_EQ(rig.fake->last_prompt(), Ids("hi"));
  EXPECT_EQ(output->text, answer);
  EXPECT_EQ(streamed, answer);
  EXPECT_EQ(output->token_ids, Ids(answer));
  EXPECT_EQ(streamed_ids, Ids(answer));
  EXPECT_EQ(output->finish, FinishReason::kLength);
  EXPECT_EQ(output->usage.num_prompt_tokens, 2);
  EXPECT_EQ(output->usage.num_output_tokens, static_cast<int64_t>(answer.size()));
  EXPECT_GT(output->timing.first_token, 0);
  EXPECT_EQ(output->timing.gaps.size(), answer.size() - 1);
}

TEST(Frontend, AnUnfinishedCharacterAtTheEndIsReplaced) {
  FrontendRig rig({.tokens = Ids("a\xe4\xb8")});
  const auto output = rig.frontend->Generate(TextRequest("x"));
  ASSERT_TRUE(output);
  EXPECT_EQ(output->text, "a\xef\xbf\xbd");
}

TEST(Frontend, AStopStringEndsTheRequestAndIsNotShown) {
  for (const int late : {0, 3}) {
    FrontendRig rig({.tokens = Ids("one two. "), .endless = true, .late_tokens = late});
    GenerateRequest request = TextRequest("x");
    request.stop = {"two. one", "zzz"};
    std::string streamed;
    const auto output =
        rig.frontend->Generate(request, [&](const Delta& delta) { streamed += delta.text; });
    ASSERT_TRUE(output);
    EXPECT_EQ(output->text, "one ");
    EXPECT_EQ(streamed, "one ");
    EXPECT_EQ(output->finish, FinishReason::kStop);
    EXPECT_EQ(output->stop_string, "two. one");
    EXPECT_EQ(output->token_ids, Ids("one two. one"));
    EXPECT_EQ(output->usage.num_output_tokens, 12);
    EXPECT_EQ(rig.fake->cancels(), std::vector{FinishReason::kStop});
  }
}

TEST(Frontend, IncludeStopStrShowsStopStringAndStopToken) {
  FrontendRig by_text({.tokens = Ids("ab END cd")});
  GenerateRequest request = TextRequest("x");
  request.stop = {"END"};
  request.include_stop_str_in_output = true;
  EXPECT_EQ(by_text.frontend->Generate(request)->text, "ab END");

  FrontendRig by_token({.tokens = Ids("ab!"), .finish = FinishReason::kStop});
  EXPECT_EQ(by_token.frontend->Generate(request)->text, "ab!");
  request.include_stop_str_in_output = false;
  const auto output = by_token.frontend->Generate(request);
  EXPECT_EQ(output->text, "ab");
  EXPECT_EQ(output->stop_token, '!');
  EXPECT_EQ(output->token_ids, Ids("ab!"));
}

TEST(Frontend, SpecialTokensAreSkippedUnlessWanted) {
  std::vector<TokenId> tokens = Ids("ab");
  tokens.insert(tokens.begin() + 1, kEndToken);
  FrontendRig rig({.tokens = tokens});
  GenerateRequest request = TextRequest("x");
  EXPECT_EQ(rig.frontend->Generate(request)->text, "ab");
  request.skip_special_tokens = false;
  EXPECT_EQ(rig.frontend->Generate(request)->text, "a<end>b");
}

TEST(Frontend, StopStringsDoNotCountBeforeMinTokens) {
  FrontendRig rig({.tokens = Ids("abcabcabc")});
  GenerateRequest request = TextRequest("x");
  request.stop = {"bc"};
  request.sampling.min_tokens = 4;
  const auto output = rig.frontend->Generate(request);
  EXPECT_EQ(output->text, "abca");
  EXPECT_EQ(output->finish, FinishReason::kStop);
}

// Whatever the sizes of the engine's events, the text is that of the whole answer cut at its first
// stop string.
TEST(Frontend, TextIsTheSameForEveryChunking) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string answer;
    for (int i = 0; i < 30; ++i)
      answer += std::vector<std::string>{"a", "b", "é", "世"}[random() % 4];
    const std::vector<std::string> stops = {"ab世", "éé", "b世a"};
    std::string expected = answer;
    size_t best_end = std::string::npos;
    for (const std::string& stop : stops) {
      const size_t begin = answer.find(stop);
      if (begin == std::string::npos || begin + stop.size() >= best_end) continue;
      best_end = begin + stop.size();
      expected = answer.substr(0, begin);
    }
    FrontendRig rig({.tokens = Ids(answer), .tokens_per_event = 1 + random() % 7});
    GenerateRequest request = TextRequest("x");
    request.stop = stops;
    const auto output = rig.frontend->Generate(request);
    ASSERT_EQ(output->text, expected) << answer;
    ASSERT_EQ(output->finish == FinishReason::kStop, best_end != std::string::npos);
  }
}

TEST(Frontend, MessagesPassThroughTheChatTemplate) {
  FrontendRig rig({.tokens = Ids("ok")}, true,
                  "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
                  "{% if add_generation_prompt %}[assistant]{% endif %}");
  GenerateRequest request;
  request.prompt = MakeConversation({{"user", "hi"}});
  ASSERT_TRUE(rig.frontend->Generate(request));
  EXPECT_EQ(rig.fake->last_prompt(), Ids("[user]hi[assistant]"));
}

TEST(Frontend, ABrokenChatTemplateFailsConversationsOnly) {
  FrontendRig rig({.tokens = Ids("ok")}, true, "{% for %}");
  EXPECT_TRUE(rig.frontend->encoder().has_chat_template());
  EXPECT_TRUE(rig.frontend->Generate(TextRequest("hi")));
  GenerateRequest request;
  request.prompt = MakeConversation({{"user", "hi"}});
  const auto output = rig.frontend->Generate(request);
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().message().find("no chat template"), std::string::npos);
}

TEST(Frontend, WithoutATokenizerIdsStillWork) {
  FrontendRig rig({.tokens = {7, 8, 9}}, false);
  GenerateRequest request;
  request.prompt = std::vector<TokenId>{5, 6};
  const auto output = rig.frontend->Generate(request);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->token_ids, (std::vector<TokenId>{7, 8, 9}));
  EXPECT_EQ(output->text, "");

  const auto text = rig.frontend->Generate(TextRequest("hi"));
  ASSERT_FALSE(text);
  EXPECT_NE(text.error().message().find("tokenizer.json"), std::string::npos);
  request.stop = {"x"};
  EXPECT_NE(rig.frontend->Generate(request).error().message().find("stop"), std::string::npos);
  request.prompt = MakeConversation({{"user", "hi"}});
  request.stop = {};
  EXPECT_FALSE(rig.frontend->Generate(request));
}

TEST(Frontend, BadRequestsNameTheField) {
  FrontendRig rig({.tokens = Ids("x")});
  GenerateRequest request = TextRequest("");
  EXPECT_NE(rig.frontend->Generate(request).error().message().find("prompt"), std::string::npos);
  request = TextRequest("a");
  request.stop = {"ok", ""};
  EXPECT_NE(rig.frontend->Generate(request).error().message().find("stop[1]"), std::string::npos);
  request = TextRequest("a");
  request.prompt = MakeConversation({{"user", "hi"}});
  EXPECT_NE(rig.frontend->Generate(request).error().message().find("chat template"),
            std::string::npos);
}

TEST(Frontend, CancelKeepsWhatCame) {
  FrontendRig rig({.tokens = Ids("ab"), .endless = true});
  std::stop_source source;
  size_t seen = 0;
  const auto output = rig.frontend->Generate(
      TextRequest("x"),
      [&](const Delta& delta) {
        seen += delta.tokens.size();
        if (seen > 10) source.request_stop();
      },
      source.get_token());
  ASSERT_TRUE(output);
  EXPECT_EQ(output->finish, FinishReason::kCancelled);
  EXPECT_EQ(output->text.substr(0, 4), "abab");
  EXPECT_EQ(output->token_ids.size(), seen);
}

TEST(Frontend, FailuresOnTheWayCarryTheReason) {
  FrontendRig rig({.tokens = Ids("ab"),
                   .finish = FinishReason::kError,
                   .error = Error(ErrorCode::kInternal, "boom")});
  const auto output = rig.frontend->Generate(TextRequest("x"));
  ASSERT_TRUE(output);
  EXPECT_EQ(output->finish, FinishReason::kError);
  EXPECT_EQ(output->error->message(), "boom");
  EXPECT_EQ(output->text, "ab");
}

TEST(Frontend, ADeadEngineDoesNotHangTheCaller) {
  FrontendRig rig({.tokens = Ids("ab"), .finish = FinishReason::kError});
  rig.fake->SetUnhealthy();
  const auto output = rig.frontend->Generate(TextRequest("x"));
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().message(), "the engine is unhealthy");
}

TEST(Frontend, ManyThreadsAtOnce) {
  const std::string answer = "the answer, 世界";
  FrontendRig rig({.tokens = Ids(answer), .tokens_per_event = 3});
  std::vector<std::thread> threads;
  std::atomic<int> num_right = 0;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        const auto output = rig.frontend->Generate(TextRequest("q"));
        if (output && output->text == answer) ++num_right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, 160);
}

}  // namespace
}  // namespace moebius::frontend
