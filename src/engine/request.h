// What a request is at the engine's door: token ids in, token events out. Plain values; text is the
// frontend's business.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/sampling_params.h"
#include "engine/token_constraint.h"

namespace moebius::engine {

using RequestId = StrongId<struct RequestTag, int64_t>;

struct RequestInput {
  std::vector<TokenId> prompt;
  SamplingParams sampling;

  // Requests share cached prefixes only within one salt (a user, a tenant).
  std::string cache_salt;

  // Smaller is sooner. One step of priority is worth having arrived kPriorityArrivals requests
  // earlier, so that a flood of urgent requests cannot hold an old one back for ever.
  int32_t priority = 0;  // -kMaxPriority ... kMaxPriority

  std::shared_ptr<TokenConstraint> constraint;  // null: any token

  // Which of the data-parallel ranks, from 0, is to answer; none: the best one.
  std::optional<int> data_parallel_rank;

  // When its user sent it: times to the first token and to the end count from here.
  std::chrono::steady_clock::time_point arrival = std::chrono::steady_clock::now();
};
constexpr int64_t kPriorityArrivals = 1024;
constexpr int32_t kMaxPriority = 1000;

enum class FinishReason : uint8_t {
  kStop,       // an end token, or the frontend saw a stop string
  kLength,     // max_tokens, or the model's length
  kCancelled,  // by the client, or the engine is shutting down
  kError,
};
const char* FinishReasonName(FinishReason reason);  // "stop", "length", "cancelled", "error"

struct TokenLogprobs {
  TokenId token = -1;
  float logprob = 0.0f;                 // its own, of the raw logits; -inf: they were no number
  int32_t rank = 0;                     // its own: 1 is the most likely
  std::span<const TokenId> top_tokens;  // the num_logprobs best, best first
  std::span<const float> top_logprobs;
};

struct Usage {
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // of the prompt, found in the prefix cache at first admission
  int64_t num_output_tokens = 0;
};

// News of one request: tokens, or its end, or both. Spans and pointers live until the sink returns.
struct TokenEvent {
  RequestId request;
  std::span<const TokenId> tokens;          // new since the last event, an end token included
  std::span<const TokenLogprobs> logprobs;  // one a token if the request asked, else empty
  // In the first event with tokens, if the request asked: one a prompt token, from the second on.
  std::span<const TokenLogprobs> prompt_logprobs;
  std::optional<FinishReason> finish;  // set in the last event of a request and only there
  std::optional<TokenId> stop_token;   // kStop by a token: which one
  const Error* error = nullptr;        // kError: why
  Usage usage;                         // so far
};

// Called on the engine's thread, once an event, in order; exactly one event has `finish`. It must
// be quick and must not wait for the engine; it may call Submit and Cancel.
using TokenSink = std::function<void(const TokenEvent&)>;

}  // namespace moebius::engine
