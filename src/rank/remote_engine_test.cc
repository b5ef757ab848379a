// A RemoteEngine against another side that says what the test wants.
#include "rank/remote_engine.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace moebius::rank {
namespace {

using engine::FinishReason;
constexpr auto kPatience = std::chrono::seconds(30);

struct Ends {
  explicit Ends(RemoteEngine::Options options = {}) {
    const auto pair = FrameSocket::Pair();
    EXPECT_TRUE(pair);
    rank = std::make_unique<FrameSocket>(pair->second);
    engine = std::make_unique<RemoteEngine>(std::make_unique<FrameSocket>(pair->first),
                                            std::move(options));
    ReadyMessage ready;
    ready.limits.vocab_size = 100;
    ready.limits.max_model_len = 50;
    ready.limits.max_num_seqs = 2;
    ready.limits.max_num_waiting = 1;
    rank->Send(Encode(ready));
    while (!engine->is_ready()) std::this_thread::yield();
  }

  template <typename T>
  T Next() const {
    const auto frame = rank->Receive();
    EXPECT_TRUE(frame) << frame.error().message();
    auto message = DecodeToRank(*frame);
    EXPECT_TRUE(message) << message.error().message();
    return std::get<T>(*message);
  }

  std::unique_ptr<FrameSocket> rank;
  std::unique_ptr<RemoteEngine> engine;
};

engine::RequestInput Input() {
  engine::RequestInput input;
  input.prompt = {1, 2, 3};
  return input;
}

TEST(RemoteEngine, EventsOfARequest) {
  Ends ends;
  engine::TokenStream stream;
  const auto id = ends.engine->Submit(Input(), stream.Sink());
  ASSERT_TRUE(id);
  const auto submitted = ends.Next<SubmitMessage>();
  EXPECT_EQ(submitted.input.prompt, Input().prompt);
  const std::vector<TokenId> tokens = {7, 8};
  engine::TokenEvent event;
  event.tokens = tokens;
  ends.rank->Send(EncodeEvent(submitted.request, event)[0]);
  const auto chunk = stream.Next(kPatience);
  ASSERT_TRUE(chunk);
  EXPECT_EQ(chunk->tokens, tokens);
  ends.engine->Cancel(*id, FinishReason::kStop);
  const auto cancelled = ends.Next<CancelMessage>();
  EXPECT_EQ(cancelled.request, submitted.request);
  EXPECT_EQ(cancelled.reason, FinishReason::kStop);
  event.tokens = {};
  event.finish = FinishReason::kStop;
  ends.rank->Send(EncodeEvent(submitted.request, event)[0]);
  const auto end = stream.Collect(kPatience);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->finish, FinishReason::kStop);
  ends.rank.reset();
}

// As of a prompt whose log probabilities no frame holds: one event for whoever listens.
TEST(RemoteEngine, AnEventOfSeveralFrames) {
  Ends ends;
  engine::TokenStream stream;
  ASSERT_TRUE(ends.engine->Submit(Input(), stream.Sink()));
  const auto submitted = ends.Next<SubmitMessage>();
  const std::vector<TokenId> tops = {3, 4};
  const std::vector<float> top_logprobs = {-0.5F, -1.5F};
  std::vector<engine::TokenLogprobs> prompt_logprobs;
  for (int i = 0; i < 11; ++i) {
    prompt_logprobs.push_back({i, -0.25F * static_cast<float>(i), i + 1, tops, top_logprobs});
  }
  const std::vector<TokenId> tokens = {7};
  engine::TokenEvent event;
  event.tokens = tokens;
  event.prompt_logprobs = prompt_logprobs;
  event.finish = FinishReason::kLength;
  event.usage = {11, 2, 1};
  const std::vector<std::string> frames = EncodeEvent(submitted.request, event, 6);
  ASSERT_EQ(frames.size(), 6U);  // two entries of three numbers each
  for (const std::string& frame : frames) {
    EXPECT_FALSE(stream.TryNext());
    ends.rank->Send(frame);
  }
  const auto chunk = stream.Next(kPatience);
  ASSERT_TRUE(chunk) << chunk.error().message();
  EXPECT_EQ(chunk->tokens, tokens);
  EXPECT_EQ(chunk->finish, FinishReason::kLength);
  EXPECT_EQ(chunk->usage.num_prompt_tokens, 11);
  ASSERT_EQ(chunk->prompt_logprobs.size(), 11U);
  for (int i = 0; i < 11; ++i) {
    const engine::LogprobEntry& entry = chunk->prompt_logprobs[static_cast<size_t>(i)];
    EXPECT_EQ(entry.token, i);
    EXPECT_EQ(entry.rank, i + 1);
    EXPECT_EQ(entry.top_tokens, tops);
  }
  ends.rank.reset();
}

TEST(RemoteEngine, RefusesWhatIsTooMuchOrCannotTravel) {
  Ends ends;
  std::vector<engine::TokenStream> streams(4);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(ends.engine->Submit(Input(), streams[static_cast<size_t>(i)].Sink()));
  }
  const auto refused = ends.engine->Submit(Input(), streams[3].Sink());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
  engine::RequestInput empty;
  EXPECT_EQ(ends.engine->Submit(empty, streams[3].Sink()).error().code(),
            ErrorCode::kInvalidArgument);
  // The engine's own word comes as the request's end.
  const auto first = ends.Next<SubmitMessage>();
  ends.rank->Send(
      Encode(RefusedMessage{first.request, Error(ErrorCode::kUnavailable, "too many wait")}));
  const auto end = streams[0].Collect(kPatience);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->finish, FinishReason::kError);
  EXPECT_EQ(end->error->message(), "too many wait");
  ends.rank.reset();
}

TEST(RemoteEngine, AClosedConnectionEndsEveryRequest) {
  Ends ends;
  std::vector<engine::TokenStream> streams(2);
  for (auto& stream : streams) ASSERT_TRUE(ends.engine->Submit(Input(), stream.Sink()));
  ends.rank.reset();
  for (auto& stream : streams) {
    const auto end = stream.Collect(kPatience);
    ASSERT_TRUE(end);
    EXPECT_EQ(end->finish, FinishReason::kError);
    EXPECT_TRUE(end->error);
  }
  EXPECT_FALSE(ends.engine->Health());
  engine::TokenStream late;
  const auto refused = ends.engine->Submit(Input(), late.Sink());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
}

TEST(RemoteEngine, WhoeverKnowsWhySaysIt) {
  Ends ends({.on_step = {}, .on_ready = {}, .patience = kPatience});
  engine::TokenStream stream;
  ASSERT_TRUE(ends.engine->Submit(Input(), stream.Sink()));
  ends.rank.reset();
  ends.engine->Fail(Error(ErrorCode::kUnavailable, "rank 0 was killed"));
  const auto end = stream.Collect(kPatience);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->finish, FinishReason::kError);
  EXPECT_EQ(end->error->message(), "rank 0 was killed");
  EXPECT_EQ(ends.engine->Health().error().message(), "rank 0 was killed");
}

TEST(RemoteEngine, GarbageEndsEveryRequest) {
  Ends ends;
  engine::TokenStream stream;
  ASSERT_TRUE(ends.engine->Submit(Input(), stream.Sink()));
  ends.rank->Send("\xff\xff\xff garbage");
  const auto end = stream.Collect(kPatience);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->finish, FinishReason::kError);
  EXPECT_EQ(end->error->code(), ErrorCode::kCorrupt);
}

TEST(RemoteEngine, DestructionAsksForTheEnd) {
  Ends ends;
  engine::TokenStream stream;
  ASSERT_TRUE(ends.engine->Submit(Input(), stream.Sink()));
  (void)ends.Next<SubmitMessage>();
  std::thread rank([&] {
    (void)ends.Next<StopMessage>();
    ends.rank.reset();
  });
  ends.engine.reset();
  rank.join();
  const auto end = stream.Collect(std::chrono::milliseconds(0));
  ASSERT_TRUE(end);
  EXPECT_EQ(end->finish, FinishReason::kCancelled);
}

TEST(RemoteEngine, StatsAreTheLastThatCame) {
  Ends ends;
  StatsMessage message;
  message.stats.num_running = 7;
  message.fault = Error(ErrorCode::kDeadline, "step 3 is not done");
  ends.rank->Send(Encode(message));
  while (ends.engine->Stats().num_running != 7) std::this_thread::yield();
  EXPECT_EQ(ends.engine->Health().error().message(), "step 3 is not done");
  ends.rank.reset();
}

TEST(FrameSocket, LargeFramesAndManyInOrder) {
  const auto pair = FrameSocket::Pair();
  ASSERT_TRUE(pair);
  auto one = std::make_unique<FrameSocket>(pair->first);
  FrameSocket other(pair->second);
  const std::string large(5'000'000, 'x');
  one->Send(large);
  for (int i = 0; i < 1000; ++i) one->Send(std::to_string(i));
  one->Send("");
  EXPECT_EQ(other.Receive().value(), large);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(other.Receive().value(), std::to_string(i));
  EXPECT_EQ(other.Receive().value(), "");
  one->Send("the last words");
  one.reset();
  EXPECT_EQ(other.Receive().value(), "the last words");
  const auto end = other.Receive();
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code(), ErrorCode::kUnavailable);
}

TEST(FrameSocket, CloseEndsAReceive) {
  const auto pair = FrameSocket::Pair();
  ASSERT_TRUE(pair);
  FrameSocket one(pair->first);
  FrameSocket other(pair->second);
  std::thread closer([&] { one.Close(); });
  EXPECT_FALSE(one.Receive());
  EXPECT_FALSE(other.Receive());
  closer.join();
}

}  // namespace
}  // namespace moebius::rank
