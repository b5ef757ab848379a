// Log probabilities in the three shapes that clients know: chat's, completions', and vLLM's
// prompt_logprobs. Free functions and one small object; one thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "frontend/request.h"
#include "text/tokenizer.h"

namespace moebius::serve {

struct LogprobStyle {
  int32_t num_top = 0;        // so many of the best with each token
  bool as_token_ids = false;  // "token_id:5" in place of texts
};

// {"content":[{"token","logprob","bytes","top_logprobs":[...]}, ...]}
void AppendChatLogprobs(std::string& out, std::span<const frontend::TokenLogprob> logprobs,
                        const LogprobStyle& style);

// [null,{"5":{"logprob","rank","decoded_token"}, ...}, ...]: one a prompt token. `logprobs` are
// from the second token on.
void AppendPromptLogprobs(std::string& out, std::span<const frontend::TokenLogprob> logprobs,
                          const LogprobStyle& style);

// Completions' {"tokens","token_logprobs","top_logprobs","text_offset"}, whose offsets count the
// characters of the choice's text.
class CompletionLogprobs {
 public:
  // `offset`: of the next token, in characters.
  CompletionLogprobs(const LogprobStyle& style, int64_t offset) : style_(style), offset_(offset) {}

  // A token without a log probability: the prompt's first.
  void AddFirst(TokenId token, std::string_view bytes, std::string_view text);
  // `text`: what of the choice's text is the token's; empty for a token that is not shown.
  void Add(const frontend::TokenLogprob& logprob, std::string_view text);

  int64_t offset() const { return offset_; }
  void AppendTo(std::string& out) const;

 private:
  void AddToken(TokenId token, std::string_view bytes, std::string_view text);
  void AddTop(const frontend::TokenLogprob& logprob);

  LogprobStyle style_;
  int64_t offset_;
  std::string tokens_;
  std::string token_logprobs_;
  std::string top_logprobs_;
  std::string text_offset_;
};

// Finds the part of a prompt's text that each of its tokens stands for, token by token. Tokens that
// encoding added (bos) stand for none.
class PromptTexts {
 public:
  PromptTexts(const text::Tokenizer* tokenizer, std::string_view text)
      : tokenizer_(tokenizer), rest_(text) {}
  std::string_view Next(TokenId token);

 private:
  const text::Tokenizer* tokenizer_;
  std::string_view rest_;
};

}  // namespace moebius::serve
