#include "engine/sampling_params.h"

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
    if (token < 0 || token >= vocab_size) {
      return Wrong("stop_token_ids", token, fmt::format("ids from 0 to {}", vocab_size - 1));
    }
  }
  if (p.num_logprobs < -1 || p.num_logprobs > kMaxLogprobs || p.num_logprobs > vocab_size) {
    return Wrong("logprobs", p.num_logprobs, fmt::format("a number from 0 to {}", kMaxLogprobs));
  }
  return {};
}

}  // namespace moebius::engine
