#include "engine/sampling_params.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace moebius::engine {
namespace {

std::string ErrorOf(const std::function<void(SamplingParams&)>& change) {
  SamplingParams params;
  change(params);
  const Status status = Validate(params, 100);
  return status ? "" : status.error().message();
}

TEST(SamplingParams, WhatMayBeAskedFor) {
  EXPECT_EQ(ErrorOf([](SamplingParams&) {}), "");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.temperature = 0; }), "");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.top_k = -1; }), "");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.num_logprobs = 20; }), "");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.max_tokens = p.min_tokens = 5; }), "");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.stop_token_ids = {0, 99}; }), "");
}

TEST(SamplingParams, ErrorsNameFieldValueAndWhatIsExpected) {
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.temperature = -1; }),
            "temperature is -1, expected 0 (greedy) or a positive number");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.temperature = std::nanf(""); }),
            "temperature is nan, expected 0 (greedy) or a positive number");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.top_k = -2; }),
            "top_k is -2, expected a positive number, or 0 or -1 for all tokens");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.top_p = 0; }),
            "top_p is 0, expected a number above 0 and at most 1");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.min_p = 1.5f; }),
            "min_p is 1.5, expected a number from 0 to 1");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.repetition_penalty = 0; }),
            "repetition_penalty is 0, expected a positive number");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.presence_penalty = 3; }),
            "presence_penalty is 3, expected a number from -2 to 2");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.frequency_penalty = -3; }),
            "frequency_penalty is -3, expected a number from -2 to 2");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.max_tokens = 0; }),
            "max_tokens is 0, expected at least 1");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) {
              p.max_tokens = 3;
              p.min_tokens = 4;
            }),
            "min_tokens is 4, expected at most max_tokens, 3");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.stop_token_ids = {100}; }),
            "stop_token_ids is 100, expected ids from 0 to 99");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.num_logprobs = 21; }),
            "logprobs is 21, expected a number from 0 to 20");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.num_prompt_logprobs = -2; }),
            "prompt_logprobs is -2, expected a number from 0 to 20");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.num_prompt_logprobs = 21; }),
            "prompt_logprobs is 21, expected a number from 0 to 20");
}

TEST(SamplingParams, BiasesAndListsOfTokensAreChecked) {
  EXPECT_EQ(ErrorOf([](SamplingParams& p) {
              p.logit_bias = {{0, -100.0f}, {99, 100.0f}};
              p.allowed_token_ids = {0, 99};
              p.bad_words = {{0}, {99, 0, 99}};
              p.num_prompt_logprobs = 0;
            }),
            "");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.logit_bias = {{1, 1.0f}, {100, 1.0f}}; }),
            "logit_bias is 100, expected ids from 0 to 99");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.logit_bias = {{7, 100.5f}}; }),
            "logit_bias is 100.5 for token 7, expected numbers from -100 to 100");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.logit_bias = {{7, std::nanf("")}}; }),
            "logit_bias is nan for token 7, expected numbers from -100 to 100");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.logit_bias.resize(101, {1, 1.0f}); }),
            "logit_bias is a list of 101, expected at most one entry a token, 100");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.allowed_token_ids = {-1}; }),
            "allowed_token_ids is -1, expected ids from 0 to 99");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.bad_words = {{1}, {}}; }),
            "bad_words is empty at 1, expected words of at least one token");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.bad_words = {{1, 100}}; }),
            "bad_words is 100, expected ids from 0 to 99");
  EXPECT_EQ(ErrorOf([](SamplingParams& p) { p.bad_words.resize(kMaxBadWords + 1, {1}); }),
            "bad_words is a list of 1025, expected at most 1024");
}

}  // namespace
}  // namespace moebius::engine
