#include "engine/sampling_params.h"

#include <algorithm>
#include <cmath>

namespace moebius::engine {
namespace {

template <typename T>
tl::unexpected<Error> Wrong(const char* field, T found, const std::string& expected) {
  return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected {}", field, found, expected);
}

Status CheckRange(const char* field, float value, float low, float high) {
  if (value >= low && value <= high) return {};
  return Wrong(field, value, fmt::format("a number from {} to {}", low, high));
}

Status CheckLogprobs(const char* field, int32_t value, int64_t vocab_size) {
  const int64_t high = std::min<int64_t>(kMaxLogprobs, vocab_size);
  if (value >= -1 && value <= high) return {};
  return Wrong(field, value, fmt::format("a number from 0 to {}", high));
}

Status CheckToken(const char* field, TokenId token, int64_t vocab_size) {
  if (token >= 0 && token < vocab_size) return {};
  return Wrong(field, token, fmt::format("ids from 0 to {}", vocab_size - 1));
}

Status CheckLogitBias(const SamplingParams& p, int64_t vocab_size) {
  const auto size = static_cast<int64_t>(p.logit_bias.size());
  if (size > vocab_size) {
    return Wrong("logit_bias", fmt::format("a list of {}", size),
                 fmt::format("at most one entry a token, {}", vocab_size));
  }
  for (const auto& [token, bias] : p.logit_bias) {
    MOEBIUS_TRY(CheckToken("logit_bias", token, vocab_size));
    if (!(bias >= -kMaxLogitBias && bias <= kMaxLogitBias)) {
      return Wrong("logit_bias", fmt::format("{} for token {}", bias, token),
                   fmt::format("numbers from {} to {}", -kMaxLogitBias, kMaxLogitBias));
    }
  }
  return {};
}

Status CheckBadWords(const SamplingParams& p, int64_t vocab_size) {
  if (p.bad_words.size() > kMaxBadWords) {
    return Wrong("bad_words", fmt::format("a list of {}", p.bad_words.size()),
                 fmt::format("at most {}", kMaxBadWords));
  }
  for (size_t i = 0; i < p.bad_words.size(); ++i) {
    if (p.bad_words[i].empty()) {
      return Wrong("bad_words", fmt::format("empty at {}", i), "words of at least one token");
    }
    for (const TokenId token : p.bad_words[i]) {
      MOEBIUS_TRY(CheckToken("bad_words", token, vocab_size));
    }
  }
  return {};
}

}  // namespace

Status Validate(const SamplingParams& p, int64_t vocab_size) {
  if (!std::isfinite(p.temperature) || p.temperature < 0) {
    return Wrong("temperature", p.temperature, "0 (greedy) or a positive number");
  }
  if (p.top_k < -1) return Wrong("top_k", p.top_k, "a positive number, or 0 or -1 for all tokens");
  if (!(p.top_p > 0 && p.top_p <= 1)) {
    return Wrong("top_p", p.top_p, "a number above 0 and at most 1");
  }
  MOEBIUS_TRY(CheckRange("min_p", p.min_p, 0, 1));
  if (!std::isfinite(p.repetition_penalty) || p.repetition_penalty <= 0) {
    return Wrong("repetition_penalty", p.repetition_penalty, "a positive number");
  }
  MOEBIUS_TRY(CheckRange("presence_penalty", p.presence_penalty, -2, 2));
  MOEBIUS_TRY(CheckRange("frequency_penalty", p.frequency_penalty, -2, 2));
  if (p.max_tokens && *p.max_tokens < 1) {
    return Wrong("max_tokens", *p.max_tokens, "at least 1");
  }
  if (p.min_tokens < 0) return Wrong("min_tokens", p.min_tokens, "0 or more");
  if (p.max_tokens && p.min_tokens > *p.max_tokens) {
    return Wrong("min_tokens", p.min_tokens, fmt::format("at most max_tokens, {}", *p.max_tokens));
  }
  for (const TokenId token : p.stop_token_ids) {
    MOEBIUS_TRY(CheckToken("stop_token_ids", token, vocab_size));
  }
  MOEBIUS_TRY(CheckLogprobs("logprobs", p.num_logprobs, vocab_size));
  MOEBIUS_TRY(CheckLogprobs("prompt_logprobs", p.num_prompt_logprobs, vocab_size));
  MOEBIUS_TRY(CheckLogitBias(p, vocab_size));
  for (const TokenId token : p.allowed_token_ids) {
    MOEBIUS_TRY(CheckToken("allowed_token_ids", token, vocab_size));
  }
  return CheckBadWords(p, vocab_size);
}

}  // namespace moebius::engine
