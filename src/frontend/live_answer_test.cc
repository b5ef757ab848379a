#include "frontend/live_answer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "frontend/fake_engine_test.h"

namespace moebius::frontend {
namespace {

using engine::FinishReason;
using engine::News;

struct AnswerRig {
  explicit AnswerRig(Script script) : fake(new FakeEngine(std::move(script))) {
    frontend = std::make_unique<Frontend>(
        std::unique_ptr<engine::EngineClient>(fake),
        PromptEncoder(MakeByteTokenizer(), MakeError(ErrorCode::kNotFound, "no template")));
  }
  std::unique_ptr<LiveAnswer> Start(const GenerateRequest& request, News news = News::kAny) {
    auto answer = LiveAnswer::Start(*frontend, request, [this] { ++num_news; }, news);
    EXPECT_TRUE(answer) << answer.error().message();
    return answer ? std::move(*answer) : nullptr;
  }
  std::unique_ptr<LiveAnswer> StartWithin(const std::shared_ptr<ReadBudget>& budget) {
    GenerateRequest request;
    request.prompt = std::string("hi");
    auto answer = LiveAnswer::Start(*frontend, request, [this] { ++num_news; }, News::kAny, budget);
    EXPECT_TRUE(answer) << answer.error().message();
    return answer ? std::move(*answer) : nullptr;
  }
  FakeEngine* fake;  // the frontend's
  std::unique_ptr<Frontend> frontend;
  std::atomic<int> num_news{0};
};

template <typename Condition>
bool Eventually(const Condition& condition) {
  for (int i = 0; i < 10000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

TEST(LiveAnswer, ComesInPiecesOnePerPoll) {
  AnswerRig rig({.tokens = Ids("Grüße, 世界!")});
  const auto answer = rig.Start(TextRequest("hi"));
  std::string text;
  ASSERT_TRUE(Eventually([&] {
    const int before = rig.num_news;
    const std::optional<Delta> delta = answer->Poll();
    if (delta) {
      EXPECT_GE(rig.num_news, 1);
      text += delta->text;
    }
    EXPECT_GE(rig.num_news, before);
    return answer->finished();
  }));
  EXPECT_EQ(text, "Grüße, 世界!");
  EXPECT_EQ(answer->output().text, text);
  EXPECT_EQ(answer->output().finish, FinishReason::kLength);
  EXPECT_FALSE(answer->Poll());
}

// Nobody polls: one call, however much comes; and it all comes with the next poll.
TEST(LiveAnswer, NewsIsToldOnceUntilThePoll) {
  AnswerRig rig({.tokens = Ids("abc"), .endless = true});
  const auto answer = rig.Start(TextRequest("hi"));
  ASSERT_TRUE(Eventually([&] { return rig.fake->num_events() > 3; }));
  EXPECT_EQ(rig.num_news, 1);
  const auto delta = answer->Poll();
  ASSERT_TRUE(delta);
  EXPECT_GT(delta->tokens.size(), 1U);
  EXPECT_TRUE(Eventually([&] { return rig.num_news >= 2; }));
}

TEST(LiveAnswer, NewsOfTheEndOnlyUnlessSomebodyMustLookForStops) {
  AnswerRig rig({.tokens = Ids("one two three")});
  const auto answer = rig.Start(TextRequest("hi"), News::kEnd);
  ASSERT_TRUE(Eventually([&] { return rig.num_news > 0; }));
  EXPECT_EQ(rig.num_news, 1);
  EXPECT_TRUE(answer->Poll());
  EXPECT_TRUE(answer->finished());
  EXPECT_EQ(answer->TakeOutput().text, "one two three");

  AnswerRig endless({.tokens = Ids("one two "), .endless = true});
  GenerateRequest request = TextRequest("x");
  request.stop = {"two"};
  const auto stopped = endless.Start(request, News::kEnd);
  ASSERT_TRUE(Eventually([&] {
    stopped->Poll();
    return stopped->finished();
  }));
  EXPECT_EQ(stopped->output().text, "one ");
  EXPECT_EQ(endless.fake->cancels(), std::vector{FinishReason::kStop});
}

TEST(LiveAnswer, DestroyingItCancelsAndSilences) {
  AnswerRig rig({.tokens = Ids("abc"), .endless = true, .late_tokens = 5});
  auto answer = rig.Start(TextRequest("hi"));
  ASSERT_TRUE(Eventually([&] { return answer->Poll().has_value(); }));
  answer.reset();
  const int before = rig.num_news;
  EXPECT_EQ(rig.fake->cancels(), std::vector{FinishReason::kCancelled});
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(rig.num_news, before);
}

TEST(LiveAnswer, CancelShowsAtItsEndAndARefusalAtOnce) {
  AnswerRig rig({.tokens = Ids("abc"), .endless = true});
  const auto answer = rig.Start(TextRequest("hi"));
  answer->Cancel();
  ASSERT_TRUE(Eventually([&] {
    answer->Poll();
    return answer->finished();
  }));
  EXPECT_EQ(answer->output().finish, FinishReason::kCancelled);

  const auto refused = LiveAnswer::Start(*rig.frontend, TextRequest(""), [] { FAIL(); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidArgument);
}

// Two choices of a call share what may wait; whoever finds no room ends, the other goes on.
TEST(LiveAnswer, WhatWaitsBeyondTheBudgetEndsIt) {
  AnswerRig rig({.tokens = Ids("abcdefg"), .endless = true, .late_tokens = 3});
  const auto budget = std::make_shared<ReadBudget>(50 * TokenBytes(false, 0) + 3);
  const auto answer = rig.StartWithin(budget);
  ASSERT_TRUE(Eventually([&] { return rig.fake->cancels().size() == 1; }));
  EXPECT_TRUE(budget->was_exceeded());
  EXPECT_EQ(budget->unread_bytes(), 50 * TokenBytes(false, 0));
  const auto delta = answer->Poll();
  ASSERT_TRUE(delta);
  EXPECT_EQ(delta->text, "abcdefgabcdefgabcdefgabcdefgabcdefgabcdefgabcdefga");
  EXPECT_TRUE(answer->finished());
  EXPECT_EQ(answer->output().finish, FinishReason::kError);
  EXPECT_NE(answer->output().error->message().find("read too slowly"), std::string::npos);
  EXPECT_EQ(budget->unread_bytes(), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_FALSE(answer->Poll());  // nothing of what was under way
  // Somebody who reads has no limit; the room is for what comes while a busy machine delays us.
  constexpr int64_t kRoom = 5000;
  const auto read = rig.StartWithin(std::make_shared<ReadBudget>(kRoom * TokenBytes(false, 0)));
  size_t num_tokens = 0;
  ASSERT_TRUE(Eventually([&] {
    if (const auto more = read->Poll()) num_tokens += more->tokens.size();
    return num_tokens > kRoom + 100;
  }));
}

TEST(LiveAnswer, ABacklogComesInSlices) {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += static_cast<char>('a' + i % 23);
  AnswerRig rig({.tokens = Ids(text), .tokens_per_event = 1000});
  const auto budget = std::make_shared<ReadBudget>(1 << 20);
  const auto answer = rig.StartWithin(budget);
  const int64_t all = 20000 * TokenBytes(false, 0);
  ASSERT_TRUE(Eventually([&] { return budget->unread_bytes() == all; }));
  std::string got;
  int num_slices = 0;
  ASSERT_TRUE(Eventually([&] {
    if (const auto delta = answer->Poll()) {
      ++num_slices;
      got += delta->text;
      EXPECT_LE(delta->tokens.size(),
                static_cast<size_t>(LiveAnswer::kSliceBytes / TokenBytes(false, 0)));
    }
    return answer->finished();
  }));
  EXPECT_EQ(got, text);
  EXPECT_GE(num_slices, 3);
  EXPECT_EQ(answer->output().finish, FinishReason::kLength);
  EXPECT_EQ(budget->unread_bytes(), 0);
}

}  // namespace
}  // namespace moebius::frontend
