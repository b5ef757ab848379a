// The engine as its clients see it: real threads, real runner, real sampling, a model of hashes.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/inproc_engine_client.h"
#include "engine/testing/engine_fixture.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"

namespace moebius::engine {
namespace {

using std::chrono::milliseconds;
using testing::EngineTest;
using testing::kLong;
using testing::SmallOptions;

RequestInput RandomInput(std::mt19937& random) {
  RequestInput input;
  const size_t num_tokens = 1 + random() % 24;
  for (size_t i = 0; i < num_tokens; ++i) {
    input.prompt.push_back(static_cast<TokenId>((i * 7 + random() % 2) % 13));
  }
  SamplingParams& p = input.sampling;
  p.max_tokens = static_cast<int32_t>(1 + random() % 30);
  p.temperature = random() % 3 == 0 ? 0.0f : 0.8f;
  p.seed = random();
  if (random() % 3 == 0) p.top_k = 20;
  if (random() % 3 == 0) p.top_p = 0.9f;
  if (random() % 4 == 0) p.min_p = 0.05f;
  if (random() % 2 == 0) p.repetition_penalty = 1.3f;
  if (random() % 3 == 0) p.frequency_penalty = 0.7f;
  if (random() % 3 == 0) p.presence_penalty = -0.5f;
  if (random() % 3 == 0) p.num_logprobs = 3;
  if (random() % 3 == 0) p.min_tokens = *p.max_tokens / 2;
  p.ignore_eos = random() % 2 == 0;
  if (random() % 4 == 0) p.num_prompt_logprobs = static_cast<int32_t>(random() % 4);
  if (random() % 4 == 0) p.logit_bias = {{3, 2.5f}, {17, -4.0f}, {40, 1.0f}};
  if (random() % 6 == 0) p.allowed_token_ids = {1, 2, 3, 5, 8, 13, 21, 34, 55};
  if (random() % 4 == 0) p.bad_words = {{3}, {8, 13}, {1, 2, 3}, {34, 34}};
  return input;
}

TEST_F(EngineTest, ABatchGivesWhatEachRequestGivesAlone) {
  EngineOptions plain = SmallOptions();
  plain.async_scheduling = false;
  plain.enable_prefix_caching = false;
  std::mt19937 random(3);
  std::vector<RequestInput> inputs;
  std::vector<TokenChunk> alone;
  {
    const auto client = Start(plain);
    for (int i = 0; i < 60; ++i) {
      inputs.push_back(RandomInput(random));
      alone.push_back(Run(*client, inputs.back()));
    }
  }
  for (const bool async : {false, true}) {
    for (const int64_t num_blocks : {16, 64}) {
      EngineOptions options = SmallOptions();
      options.async_scheduling = async;
      options.num_kv_blocks = num_blocks;
      const auto client = Start(options);
      std::vector<TokenStream> streams(inputs.size());
      for (size_t i = 0; i < inputs.size(); ++i) {
        ASSERT_TRUE(client->Submit(inputs[i], streams[i].Sink()).has_value());
      }
      for (size_t i = 0; i < inputs.size(); ++i) {
        const auto chunk = streams[i].Collect(kLong);
        ASSERT_TRUE(chunk.has_value());
        EXPECT_EQ(chunk->tokens, alone[i].tokens) << i;
        EXPECT_EQ(chunk->finish, alone[i].finish);
        EXPECT_EQ(chunk->logprobs, alone[i].logprobs) << i;
        EXPECT_EQ(chunk->prompt_logprobs, alone[i].prompt_logprobs) << i;
      }
      const EngineStats stats = StatsAtRest(*client, 60);
      EXPECT_EQ(stats.num_finished_stop + stats.num_finished_length, 60);
      EXPECT_EQ(stats.num_preemptions > 0, num_blocks == 16);
      EXPECT_EQ(stats.num_dropped_tokens > 0, async);
      EXPECT_EQ(stats.plan_time.count, stats.num_steps);
    }
  }
}

// The next step is planned when the one that runs is about to end.
TEST_F(EngineTest, ARequestThatComesDuringAStepIsInTheNext) {
  EngineOptions options = SmallOptions();
  std::mutex mutex;
  std::map<int64_t, int64_t> prefills;  // by step
  options.on_step = [&](const StepRecord& record) {
    const std::lock_guard lock(mutex);
    prefills[record.step_id] = record.num_prefill_tokens;
  };
  const auto client = Start(options);
  hooks_.hangs = true;
  const TokenStream first;
  const TokenStream second;
  ASSERT_TRUE(client->Submit(Make({1, 2, 3}, 8), first.Sink()));
  while (client->Stats().num_running == 0) std::this_thread::sleep_for(milliseconds(1));
  ASSERT_TRUE(client->Submit(Make({4, 6, 7, 8}, 8), second.Sink()));
  hooks_.hangs = false;
  ASSERT_TRUE(TokenStream(first).Collect(kLong));
  ASSERT_TRUE(TokenStream(second).Collect(kLong));
  StatsAtRest(*client, 2);
  const std::lock_guard lock(mutex);
  EXPECT_EQ(prefills[0], 3);
  EXPECT_EQ(prefills[1], 4);
  EXPECT_EQ(prefills[2], 0);
}

TEST_F(EngineTest, LogprobsAreOfTheRawLogitsAndBestFirst) {
  const auto client = Start();
  RequestInput input = Make({1, 2, 3}, 5);
  input.sampling.temperature = 0;
  input.sampling.num_logprobs = 4;
  const TokenChunk chunk = Run(*client, input);
  ASSERT_EQ(chunk.logprobs.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const LogprobEntry& entry = chunk.logprobs[i];
    ASSERT_EQ(entry.top_tokens.size(), 4u);
    EXPECT_EQ(entry.top_tokens[0], chunk.tokens[i]);
    EXPECT_EQ(entry.top_logprobs[0], entry.logprob);
    EXPECT_LT(entry.logprob, 0);
    EXPECT_TRUE(std::ranges::is_sorted(entry.top_logprobs, std::greater()));
  }
}

TEST_F(EngineTest, SeedsComeFromTheEngineWhereARequestBringsNone) {
  std::vector<TokenChunk> first, second;
  for (auto* chunks : {&first, &second}) {
    const auto client = Start();
    for (int i = 0; i < 3; ++i) chunks->push_back(Run(*client, Make({1, 2, 3}, 20)));
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(first[i].tokens, second[i].tokens);
  EXPECT_NE(first[0].tokens, first[1].tokens);
  EngineOptions options = SmallOptions();
  options.seed.reset();
  EXPECT_NE(Run(*Start(options), Make({1, 2, 3}, 20)).tokens, first[0].tokens);
}

TEST_F(EngineTest, EndTokensMinTokensAndIgnoreEos) {
  const auto client = Start();
  RequestInput input = Make({9, 8}, 30);
  input.sampling.seed = 4;
  const TokenChunk whole = Run(*client, input);
  EXPECT_EQ(whole.finish, FinishReason::kLength);
  EXPECT_EQ(whole.usage.num_output_tokens, 30);

  const TokenId stop = whole.tokens[6];
  const auto first = std::ranges::find(whole.tokens, stop) - whole.tokens.begin();
  input.sampling.stop_token_ids = {stop};
  const TokenChunk stopped = Run(*client, input);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_token, stop);
  EXPECT_EQ(stopped.tokens.size(), static_cast<size_t>(first) + 1);

  input.sampling.min_tokens = 20;
  const TokenChunk late = Run(*client, input);
  EXPECT_GE(late.tokens.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_NE(late.tokens[static_cast<size_t>(i)], stop);
}

TEST_F(EngineTest, CancelEndsARequestOnceWithTheGivenReason) {
  hooks_.delay_ms = 20;
  const auto client = Start();
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kCancelled}) {
    TokenStream stream;
    const auto id = client->Submit(Make({1, 2}, 60), stream.Sink());
    ASSERT_TRUE(id.has_value());
    auto chunk = stream.Next(kLong);
    ASSERT_TRUE(chunk.has_value());
    EXPECT_FALSE(chunk->finish);
    client->Cancel(*id, reason);
    client->Cancel(*id, reason);
    chunk = stream.Collect(kLong);
    ASSERT_TRUE(chunk.has_value());
    EXPECT_EQ(chunk->finish, reason);
    EXPECT_LT(chunk->usage.num_output_tokens, 60);
    EXPECT_EQ(stream.Next(milliseconds(1)).error().code(), ErrorCode::kNotFound);
    client->Cancel(*id, reason);
  }
  client->Cancel(RequestId(), FinishReason::kCancelled);
  client->Cancel(RequestId(12345), FinishReason::kCancelled);
  EXPECT_EQ(Run(*client, Make({1}, 2)).tokens.size(), 2u);
}

TEST_F(EngineTest, ManyThreadsSubmitAndCancelAtOnce) {
  EngineOptions options = SmallOptions();
  options.num_kv_blocks = 24;
  const auto client = Start(options);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 40; ++i) {
        TokenStream stream;
        const auto id = client->Submit(RandomInput(random), stream.Sink());
        ASSERT_TRUE(id.has_value());
        const bool cancels = random() % 3 == 0;
        if (cancels) client->Cancel(*id);
        (void)client->Stats();
        (void)client->ExpertLoad();
        const auto chunk = stream.Collect(kLong);
        ASSERT_TRUE(chunk.has_value());
        if (!cancels) {
          EXPECT_NE(chunk->finish, FinishReason::kCancelled);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(StatsAtRest(*client, 160).num_failed, 0);
}

TEST_F(EngineTest, ASinkMaySubmitAndCancel) {
  const auto client = Start();
  TokenStream second;
  std::atomic<bool> has_submitted{false};
  TokenStream first;
  const TokenSink forward = first.Sink();
  ASSERT_TRUE(client
                  ->Submit(Make({1}, 40),
                           [&](const TokenEvent& event) {
                             forward(event);
                             if (has_submitted.exchange(true)) return;
                             (void)client->Submit(Make({2}, 3), second.Sink());
                             client->Cancel(event.request, FinishReason::kStop);
                           })
                  .has_value());
  EXPECT_EQ(first.Collect(kLong)->finish, FinishReason::kStop);
  EXPECT_EQ(second.Collect(kLong)->tokens.size(), 3u);
}

TEST_F(EngineTest, AFailedStepFailsItsRequestsAndTheEngineGoesOn) {
  for (const bool async : {true, false}) {
    EngineOptions options = SmallOptions();
    options.async_scheduling = async;
    const auto client = Start(options);
    const TokenChunk before = Run(*client, Make({1, 2}, 5));
    hooks_.num_failures = 1;
    const TokenChunk failed = Run(*client, Make({1, 2}, 5));
    EXPECT_EQ(failed.finish, FinishReason::kError);
    ASSERT_TRUE(failed.error);
    EXPECT_NE(failed.error->message().find("caught fire"), std::string::npos);
    EXPECT_TRUE(client->Health().has_value());
    EXPECT_EQ(Run(*client, Make({1, 2}, 5)).finish, FinishReason::kLength);
    EXPECT_EQ(StatsAtRest(*client, 3).num_failed_steps, 1);
  }
}

TEST_F(EngineTest, FailureAfterFailureMakesItUnhealthy) {
  const auto client = Start();
  hooks_.num_failures = 100;
  for (int i = 0; i < kMaxFailuresInARow; ++i) {
    EXPECT_EQ(Run(*client, Make({1, 2}, 5)).finish, FinishReason::kError);
  }
  ASSERT_FALSE(client->Health().has_value());
  const auto id = client->Submit(Make({1}, 1), [](const TokenEvent&) { FAIL(); });
  ASSERT_FALSE(id.has_value());
  EXPECT_EQ(id.error().code(), ErrorCode::kUnavailable);
}

TEST_F(EngineTest, AStepPastItsDeadlineMakesItUnhealthy) {
  EngineOptions options = SmallOptions();
  options.step_timeout = milliseconds(20);
  const auto client = Start(options);
  hooks_.delay_ms = 300;
  const TokenChunk chunk = Run(*client, Make({1, 2}, 5));
  EXPECT_EQ(chunk.finish, FinishReason::kError);
  EXPECT_EQ(chunk.error->code(), ErrorCode::kDeadline);
  EXPECT_FALSE(client->Health().has_value());
}

TEST_F(EngineTest, LogitsThatAreNoNumbersFailTheirRequestOnly) {
  hooks_.delay_ms = 30;  // the first is not through before the rows are asked for
  const auto client = Start();
  TokenStream other;
  ASSERT_TRUE(client->Submit(Make({3}, 50), other.Sink()).has_value());
  ASSERT_TRUE(other.Next(kLong).has_value());
  TokenStream doomed;
  RequestInput input = Make({4, 4}, 50);
  ASSERT_TRUE(client->Submit(input, doomed.Sink()).has_value());
  ASSERT_TRUE(doomed.Next(kLong).has_value());
  hooks_.num_nan_rows = 1;  // decodes come in order of arrival: the first request's row
  EXPECT_EQ(other.Collect(kLong)->finish, FinishReason::kError);
  hooks_.delay_ms = 0;
  EXPECT_EQ(doomed.Collect(kLong)->finish, FinishReason::kLength);
}

TEST_F(EngineTest, ShutdownCancelsWhatIsThere) {
  hooks_.delay_ms = 20;
  auto client = Start();
  std::vector<TokenStream> streams(20);
  for (const TokenStream& stream : streams) {
    ASSERT_TRUE(client->Submit(Make({1, 2, 3}, 60), stream.Sink()).has_value());
  }
  ASSERT_TRUE(streams[0].Next(kLong).has_value());
  client.reset();
  for (TokenStream& stream : streams) {
    const auto chunk = stream.Collect(milliseconds(0));
    ASSERT_TRUE(chunk.has_value());
    EXPECT_EQ(chunk->finish, FinishReason::kCancelled);
  }
}

TEST_F(EngineTest, TooManyWaitingRequestsAreRefused) {
  hooks_.delay_ms = 5;
  EngineOptions options = SmallOptions();
  options.max_num_waiting = 3;
  options.max_num_seqs = 1;
  const auto client = Start(options);
  std::optional<Error> refused;
  for (int i = 0; i < 10; ++i) {
    const auto id = client->Submit(Make({1}, 60), [](const TokenEvent&) {});
    if (!id) refused = id.error();
  }
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code(), ErrorCode::kUnavailable);
  EXPECT_EQ(refused->message(), "3 requests wait, expected at most 3");
}

TEST_F(EngineTest, WhatCannotBeServedIsRefusedAtTheDoor) {
  const auto client = Start();
  const auto message = [&](RequestInput input) {
    const auto id = client->Submit(std::move(input), [](const TokenEvent&) { FAIL(); });
    EXPECT_FALSE(id.has_value());
    return id ? std::string() : id.error().message();
  };
  EXPECT_EQ(message(Make({}, 1)), "prompt is empty, expected at least one token");
  EXPECT_EQ(message(Make(std::vector<TokenId>(64, 1), 1)),
            "prompt has 64 tokens, expected fewer than max_model_len, 64, which the prompt and at "
            "least one output token must fit in");
  EXPECT_EQ(message(Make({1, 60}, 1)), "prompt token 1 has id 60, expected ids from 0 to 59");
  RequestInput input = Make({1}, 1);
  input.sampling.top_p = 1.5f;
  EXPECT_EQ(message(input), "top_p is 1.5, expected a number above 0 and at most 1");
}

TEST_F(EngineTest, ThePromptMayFillAllButOnePosition) {
  const auto client = Start();
  const TokenChunk chunk = Run(*client, Make(std::vector<TokenId>(63, 1), 50));
  EXPECT_EQ(chunk.tokens.size(), 1u);
  EXPECT_EQ(chunk.finish, FinishReason::kLength);
}

TEST_F(EngineTest, OptionsThatDoNotFitAreRefusedWithWhatToChange) {
  EngineOptions options = SmallOptions();
  options.num_kv_blocks = 15;
  EXPECT_EQ(TryStart(options).error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(TryStart(options).error().message().find("one request of --max-model-len 64 needs"),
            std::string::npos);
  options = SmallOptions();
  options.max_model_len = 129;
  EXPECT_EQ(TryStart(options).error().message(),
            "--max-model-len is 129, expected at most 128, the positions the model has");
  options = SmallOptions();
  options.max_num_batched_tokens = 4;
  EXPECT_FALSE(TryStart(options).has_value());
  options = SmallOptions();
  options.eos_token_ids = {60};
  EXPECT_FALSE(TryStart(options).has_value());
  options = SmallOptions();
  options.max_model_len = 0;
  options.num_kv_blocks = 10;
  EXPECT_EQ((*TryStart(options))->limits().max_model_len, 40);
}

TEST_F(EngineTest, ExpertCountsComeThrough) {
  const auto client = Start();
  Run(*client, Make({4, 4, 4, 4, 4, 4, 4, 4}, 1));
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (client->ExpertLoad().Layer(0)[0] < 8) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(milliseconds(10));
  }
}

}  // namespace
}  // namespace moebius::engine
