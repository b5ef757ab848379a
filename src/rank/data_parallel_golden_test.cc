// Two engines with a small real model: as one, they say what one says, and conversations use the
// cache of the rank that has them.
#include <gtest/gtest.h>

#include <random>

#include "engine/testing/golden_engine.h"
#include "rank/data_parallel_client.h"

namespace moebius::rank {
namespace {

using engine::EngineOptions;
using engine::RequestInput;
using engine::TokenChunk;
using engine::testing::GoldenOptions;
using engine::testing::RunAll;

constexpr const char* kModel = "qwen3_moe_old";

std::unique_ptr<engine::EngineClient> StartOne() {
  return engine::testing::StartGolden(kModel, model::DTypeChoice::kBFloat16,
                                      kernels::AvailableBackends().back(), GoldenOptions());
}

std::unique_ptr<DataParallelClient> StartTwo() {
  std::vector<std::unique_ptr<engine::EngineClient>> engines;
  for (int i = 0; i < 2; ++i) engines.push_back(StartOne());
  auto client =
      DataParallelClient::Create(std::move(engines), {.block_size = GoldenOptions().block_size});
  if (!client) CheckFailed(__FILE__, __LINE__, client.error().message());
  return std::move(*client);
}

RequestInput RandomInput(std::mt19937& random, int64_t vocab_size) {
  RequestInput input;
  for (uint32_t i = 0, size = 1 + random() % 60; i < size; ++i) {
    input.prompt.push_back(static_cast<TokenId>(random() % static_cast<uint32_t>(vocab_size)));
  }
  input.sampling.max_tokens = static_cast<int32_t>(4 + random() % 12);
  input.sampling.temperature = random() % 2 == 0 ? 0.0f : 1.0f;
  input.sampling.seed = random();
  input.sampling.num_logprobs = 1;
  return input;
}

TEST(DataParallelGolden, AnswersAreThoseOfOneEngine) {
  std::vector<RequestInput> inputs;
  std::vector<TokenChunk> alone;
  {
    const auto one = StartOne();
    std::mt19937 random(5);
    for (int i = 0; i < 16; ++i) inputs.push_back(RandomInput(random, one->limits().vocab_size));
    alone = RunAll(*one, inputs, /*at_once=*/false);
  }
  const auto two = StartTwo();
  const std::vector<TokenChunk> together = RunAll(*two, inputs, /*at_once=*/true);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << i;
    EXPECT_EQ(together[i].finish, alone[i].finish) << i;
    EXPECT_EQ(together[i].logprobs, alone[i].logprobs) << i;
  }
  EXPECT_EQ(two->Backlogs(), std::vector<RankBacklog>(2));
  for (const engine::EngineStats& stats : two->RankStats()) {
    EXPECT_GT(stats.num_prompt_tokens, 0);
  }
  EXPECT_GT(two->ExpertLoad().num_layers(), 0);
}

TEST(DataParallelGolden, ConversationsFindTheirCache) {
  const auto two = StartTwo();
  std::mt19937 random(6);
  const int64_t vocab_size = two->limits().vocab_size;
  constexpr int kNumConversations = 6;
  std::vector<std::vector<TokenId>> texts(kNumConversations);
  int64_t num_prompt_tokens = 0;
  for (int turn = 0; turn < 4; ++turn) {
    for (std::vector<TokenId>& text : texts) {
      RequestInput input = RandomInput(random, vocab_size);
      input.prompt.resize(10, 1);
      text.insert(text.end(), input.prompt.begin(), input.prompt.end());
      input.prompt = text;
      input.sampling.max_tokens = 10;
      input.sampling.ignore_eos = true;
      const TokenChunk answer = RunAll(*two, {input}, false)[0];
      text.insert(text.end(), answer.tokens.begin(), answer.tokens.end());
      num_prompt_tokens += static_cast<int64_t>(input.prompt.size());
      // All but the last turn's last tokens, in whole blocks, came from the cache.
      const int64_t num_before = 20 * turn - 1;
      EXPECT_EQ(answer.usage.num_cached_tokens, turn == 0 ? 0 : num_before / 8 * 8);
    }
  }
  const std::vector<engine::EngineStats> stats = two->RankStats();
  EXPECT_EQ(stats[0].num_prompt_tokens + stats[1].num_prompt_tokens, num_prompt_tokens);
  EXPECT_EQ(stats[0].num_prompt_tokens, stats[1].num_prompt_tokens);  // three conversations each
}

}  // namespace
}  // namespace moebius::rank
