// What requests may ask of sampling, seen from outside: biases, allowed ids, bad words, log
// probabilities of prompts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/testing/engine_fixture.h"

namespace moebius::engine {
namespace {

using testing::EngineTest;
using testing::kFakeVocabSize;
using testing::SmallOptions;

bool Contains(const std::vector<TokenId>& tokens, const std::vector<TokenId>& word) {
  return !std::ranges::search(tokens, word).empty();
}

// Greedy, with the second best known at every token.
RequestInput Greedy(std::vector<TokenId> prompt, int32_t max_tokens) {
  RequestInput input;
  input.prompt = std::move(prompt);
  input.sampling.temperature = 0;
  input.sampling.max_tokens = max_tokens;
  input.sampling.ignore_eos = true;
  input.sampling.num_logprobs = 3;
  return input;
}

TEST_F(EngineTest, ABiasMovesTheChoiceAndNotTheLogprobs) {
  const auto client = Start();
  const RequestInput plain = Greedy({9, 8, 7}, 1);
  const LogprobEntry want = Run(*client, plain).logprobs[0];
  EXPECT_EQ(want.rank, 1);
  RequestInput input = plain;
  input.sampling.logit_bias = {{want.top_tokens[0], -100.0f}, {want.top_tokens[2], 0.0f}};
  LogprobEntry got = Run(*client, input).logprobs[0];
  EXPECT_EQ(got.token, want.top_tokens[1]);
  EXPECT_EQ(got.rank, 2);
  EXPECT_EQ(got.logprob, want.top_logprobs[1]);
  EXPECT_EQ(got.top_logprobs, want.top_logprobs);
  input.sampling.logit_bias = {{42, 100.0f}};
  input.sampling.max_tokens = 20;
  EXPECT_EQ(Run(*client, input).tokens, std::vector<TokenId>(20, 42));
}

TEST_F(EngineTest, OnlyAllowedTokensAreDrawn) {
  const auto client = Start();
  RequestInput input = Greedy({9, 8, 7}, 1);
  input.sampling.num_logprobs = 20;
  const LogprobEntry all = Run(*client, input).logprobs[0];
  input.sampling.allowed_token_ids = {all.top_tokens[19], all.top_tokens[11], all.top_tokens[15]};
  EXPECT_EQ(Run(*client, input).tokens[0], all.top_tokens[11]);
  EXPECT_EQ(Run(*client, input).logprobs[0].rank, 12);
  input.sampling.temperature = 1.5f;
  input.sampling.seed = 4;
  input.sampling.max_tokens = 50;
  for (const TokenId token : Run(*client, input).tokens) {
    EXPECT_NE(std::ranges::find(input.sampling.allowed_token_ids, token),
              input.sampling.allowed_token_ids.end());
  }
}

TEST_F(EngineTest, BadWordsAreNeverCompleted) {
  for (const bool async : {true, false}) {
    EngineOptions options = SmallOptions();
    options.async_scheduling = async;
    const auto client = Start(options);
    const TokenChunk whole = Run(*client, Greedy({1, 2, 3}, 40));
    for (const size_t begin : {0, 1, 17, 36}) {
      for (const size_t size : {1, 2, 4}) {
        const auto at = whole.tokens.begin() + static_cast<int64_t>(begin);
        const std::vector<TokenId> word(at, at + static_cast<int64_t>(size));
        RequestInput input = Greedy({1, 2, 3}, 40);
        input.sampling.bad_words = {{0, 0, 0, 0, 0, 1}, word};
        const TokenChunk chunk = Run(*client, input);
        EXPECT_FALSE(Contains(chunk.tokens, word));
        ASSERT_EQ(chunk.tokens.size(), 40u);
        // Nothing changes before the word's first completion, where the second best comes.
        const auto end = std::ranges::search(whole.tokens, word).end() - whole.tokens.begin() - 1;
        EXPECT_TRUE(
            std::equal(whole.tokens.begin(), whole.tokens.begin() + end, chunk.tokens.begin()));
        const LogprobEntry& there = whole.logprobs[static_cast<size_t>(end)];
        EXPECT_EQ(chunk.tokens[static_cast<size_t>(end)], there.top_tokens[1]);
      }
    }
  }
}

TEST_F(EngineTest, ABadWordMayContinueThePrompt) {
  const auto client = Start();
  RequestInput input = Greedy({1, 2, 3}, 1);
  const TokenChunk plain = Run(*client, input);
  input.sampling.bad_words = {{3, plain.tokens[0]}, {2, 3, plain.tokens[0]}};
  EXPECT_EQ(Run(*client, input).tokens, plain.tokens);
}

TEST_F(EngineTest, ARequestThatForbidsEverythingFailsAndIsNotCorrupt) {
  const auto client = Start();
  RequestInput input = Greedy({1}, 9);
  input.sampling.allowed_token_ids = {4, 5};
  input.sampling.bad_words = {{4}, {5, 5}};
  const TokenChunk chunk = Run(*client, input);
  EXPECT_EQ(chunk.tokens, (std::vector<TokenId>{5}));
  EXPECT_EQ(chunk.finish, FinishReason::kError);
  EXPECT_EQ(chunk.error->code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(chunk.error->message(),
            "no token could be drawn at position 2: allowed_token_ids, bad_words, min_tokens and "
            "the constraint together forbid every token");
  EXPECT_EQ(StatsAtRest(*client, 1).num_corrupted, 0);
  hooks_.num_nan_rows = 1;
  input.sampling.bad_words = {};
  EXPECT_EQ(Run(*client, input).error->message(),
            "no token could be drawn at position 1: the model's logits there are not numbers");
  EXPECT_EQ(StatsAtRest(*client, 2).num_corrupted, 1);
}

class EvenTokens : public TokenConstraint {
 public:
  void FillMask(std::span<uint32_t> mask) override { std::ranges::fill(mask, 0x55555555u); }
  void Accept(TokenId token) override { EXPECT_EQ(token % 2, 0); }
};

TEST_F(EngineTest, AConstraintAndAllowedTokensHoldTogether) {
  const auto client = Start();
  RequestInput input = Greedy({1}, 30);
  input.sampling.temperature = 1;
  for (TokenId token = 0; token < kFakeVocabSize; token += 3) {
    input.sampling.allowed_token_ids.push_back(token);
  }
  input.constraint = std::make_shared<EvenTokens>();
  for (const TokenId token : Run(*client, input).tokens) EXPECT_EQ(token % 6, 0);
}

// Scores of a prompt are what the same tokens get when the model itself says them.
TEST_F(EngineTest, PromptLogprobsAreThoseOfTheSameTokensAsOutput) {
  const auto client = Start();
  RequestInput said = Greedy({1, 2}, 40);
  said.sampling.temperature = 1;
  said.sampling.seed = 6;
  const TokenChunk output = Run(*client, said);
  RequestInput input = Greedy({1, 2}, 3);
  input.prompt.insert(input.prompt.end(), output.tokens.begin(), output.tokens.end());
  input.sampling.num_prompt_logprobs = 3;
  input.sampling.logit_bias = {{3, 5.0f}};  // of outputs only
  input.sampling.bad_words = {{2, 3}};
  for (int i = 0; i < 2; ++i) {  // the second time all of it is cached
    const TokenChunk chunk = Run(*client, input);
    ASSERT_EQ(chunk.prompt_logprobs.size(), 41u);
    EXPECT_EQ(chunk.prompt_logprobs[0].token, 2);
    for (size_t j = 0; j < output.tokens.size(); ++j) {
      EXPECT_EQ(chunk.prompt_logprobs[j + 1], output.logprobs[j]) << j;
    }
    EXPECT_EQ(chunk.usage.num_cached_tokens, 0);
  }
}

TEST_F(EngineTest, PromptLogprobsOfEveryChunkSizeAndOfPreemptedRequests) {
  std::vector<TokenId> prompt;
  for (TokenId i = 0; i < 45; ++i) prompt.push_back(i * i % kFakeVocabSize);
  const auto ask = [&](int32_t n) {
    RequestInput input = Greedy(prompt, 15);
    input.sampling.num_prompt_logprobs = n;
    return input;
  };
  const std::vector<LogprobEntry> want = Run(*Start(), ask(2)).prompt_logprobs;
  ASSERT_EQ(want.size(), 44u);
  int64_t num_preemptions = 0;  // of all: a slow thread of ours may hand over one by one
  for (int64_t budget = 1; budget <= 48; ++budget) {
    EngineOptions options = SmallOptions();
    options.max_num_batched_tokens = budget;
    options.max_num_seqs = std::min<int64_t>(budget, 8);
    options.num_kv_blocks = 25;  // two prompts; the first one's output drives the second out
    const auto client = Start(options);
    std::vector<TokenStream> streams(6);
    for (const TokenStream& stream : streams) {
      ASSERT_TRUE(client->Submit(ask(2), stream.Sink()).has_value());
    }
    for (TokenStream& stream : streams) {
      EXPECT_EQ(stream.Collect(testing::kLong)->prompt_logprobs, want) << budget;
    }
    EXPECT_TRUE(budget > 1 || client->Stats().num_preemptions == 0);
    num_preemptions += client->Stats().num_preemptions;
  }
  EXPECT_GT(num_preemptions, 0);
}

TEST_F(EngineTest, AOneTokenPromptHasNoLogprobs) {
  const auto client = Start();
  RequestInput input = Greedy({1}, 2);
  input.sampling.num_prompt_logprobs = 0;
  EXPECT_TRUE(Run(*client, input).prompt_logprobs.empty());
  input.prompt = {1, 2};
  const TokenChunk chunk = Run(*client, input);
  ASSERT_EQ(chunk.prompt_logprobs.size(), 1u);
  EXPECT_TRUE(chunk.prompt_logprobs[0].top_tokens.empty());
  EXPECT_GT(chunk.prompt_logprobs[0].rank, 0);
}

}  // namespace
}  // namespace moebius::engine
