// What a caller asks of the frontend and what it gets back: text, messages or token ids in; text,
// ids, log probabilities, counts and times out. Plain values.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/request.h"
#include "engine/sampling_params.h"
#include "text/chat_template.h"
#include "text/jinja/value.h"

namespace moebius::frontend {

// A conversation for the model's chat template, as ChatTemplate::Apply takes it.
struct Conversation {
  text::jinja::Value messages;  // a list of dicts with at least `role`
  text::jinja::Value tools;     // a list of dicts, or None
  text::ChatTemplateOptions options;
};
Conversation MakeConversation(const std::vector<text::ChatMessage>& messages);

// Plain text is encoded with the tokeniser's own special tokens (bos); a rendered conversation
// brings its own.
using Prompt = std::variant<std::string, Conversation, std::vector<TokenId>>;

struct GenerateRequest {
  Prompt prompt;
  engine::SamplingParams sampling;
  // The text ends before the first of these; they do not count before sampling.min_tokens tokens.
  std::vector<std::string> stop;
  bool include_stop_str_in_output =
      false;  // the stop string, or the text of the stop token, stays in the text
  bool skip_special_tokens = true;
  // Texts that are never completed; their token ids come to those of sampling.bad_words.
  std::vector<std::string> bad_words;
  std::string cache_salt;
  int32_t priority = 0;
  std::optional<int> data_parallel_rank;
  std::chrono::steady_clock::time_point arrival = std::chrono::steady_clock::now();
};

struct TokenLogprob {
  TokenId token = -1;
  std::string bytes;  // what the token adds in the middle of a text; maybe half a character
  float logprob = 0.0f;
  int32_t rank = 0;  // 1 is the most likely
  struct Top {
    TokenId token = -1;
    std::string bytes;
    float logprob = 0.0f;
  };
  std::vector<Top> top;  // best first
};

// New since the last call: whole UTF-8 characters, never part of a stop string. The views live
// until the callback returns. `tokens` may run ahead of `text` (an unfinished character, what may
// begin a stop string).
struct Delta {
  std::string_view text;
  std::span<const TokenId> tokens;
  std::span<const TokenLogprob> logprobs;  // one a token, if asked for
};

// Seconds since the call.
struct Timing {
  double first_token = 0;  // TTFT: template, tokenising and waiting included
  double total = 0;
  std::vector<double> gaps;  // between tokens (ITL), one less than there are tokens
};

struct GenerateOutput {
  std::string text;
  std::vector<TokenId> token_ids;  // an end token included
  std::vector<TokenLogprob> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;  // if asked for: from the second prompt token on
  engine::FinishReason finish = engine::FinishReason::kError;
  std::optional<std::string> stop_string;  // kStop: which of the request's ended it
  std::optional<TokenId> stop_token;       // kStop: or which token
  std::optional<Error> error;              // kError: why
  engine::Usage usage;
  Timing timing;
};

}  // namespace moebius::frontend
