// How one request wants its tokens drawn and when it wants to end. Plain values, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace moebius::engine {

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0 or -1: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output
  float presence_penalty = 0.0f;    // these two over the output alone
  float frequency_penalty = 0.0f;
  std::optional<uint64_t> seed;  // none: the engine gives the request one of its own

  std::optional<int32_t> max_tokens;    // none: what the model's length leaves after the prompt
  int32_t min_tokens = 0;               // no end token is drawn before the output has this many
  std::vector<TokenId> stop_token_ids;  // end the request; the token that did is its last output
  bool ignore_eos = false;              // the model's own end tokens are tokens like any other

  // -1: none; n >= 0: for every output token its own log probability and rank and the n best, of
  // the raw logits: before bias, penalties and what is forbidden.
  int32_t num_logprobs = -1;
  // The same for every prompt token but the first. Such a request computes its whole prompt,
  // whatever the prefix cache has.
  int32_t num_prompt_logprobs = -1;

  // Added to the logits before all else: [-kMaxLogitBias, kMaxLogitBias]; one that comes twice
  // counts twice.
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> allowed_token_ids;  // no others are drawn, end tokens neither; empty: all
  // Never completed in the output (what of a word is in the prompt does not count): its last token
  // is not drawn where the tokens before it are the output's end. Words of several tokens cost
  // speed: the request's steps no longer overlap.
  std::vector<std::vector<TokenId>> bad_words;

  bool has_penalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

constexpr int32_t kMaxLogprobs = 20;
constexpr float kMaxLogitBias = 100.0f;
constexpr size_t kMaxBadWords = 1024;  // every step looks at each

// kInvalidArgument names the first field that cannot be honoured, its value and what is expected.
Status Validate(const SamplingParams& params, int64_t vocab_size);

}  // namespace moebius::engine
