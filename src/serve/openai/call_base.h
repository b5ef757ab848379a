// What answers of both endpoints have in common: what of each choice has been said, the envelope of
// chunks and bodies, usage. Fixed text is written once a call; a chunk is one string and its
// escaped text. One thread at a time.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/openai/api_call.h"
#include "serve/openai/call_fields.h"
#include "text/tokenizer.h"

namespace moebius::serve {

// What of a choice has come and not been said.
struct News {
  std::string_view text;
  std::span<const TokenId> tokens;
  std::span<const frontend::TokenLogprob> logprobs;
  bool is_first = false;
  bool is_last = false;
};

class CallBase : public ApiCall {
 public:
  const std::vector<frontend::GenerateRequest>& requests() const override { return requests_; }
  bool is_stream() const override { return fields_.stream; }
  const std::string& id() const override { return fields_.id; }
  int64_t n() const override { return fields_.n; }

  std::string OnDelta(size_t choice, const frontend::Delta& delta,
                      const frontend::GenerateOutput& output) override;
  std::string OnFinish(size_t choice, const frontend::GenerateOutput& output) override;
  std::string OnEnd(std::span<const frontend::GenerateOutput> outputs) override;
  std::string OnError(const ApiError& error) override;
  std::string Body(std::span<const frontend::GenerateOutput> outputs) override;

 protected:
  // `context` outlives the call.
  CallBase(CallFields fields, std::vector<frontend::GenerateRequest> requests,
           const ApiContext& context);

  // The chunks that say `news`: whole events.
  virtual void AppendChunks(std::string& out, size_t choice, const News& news,
                            const frontend::GenerateOutput& output) = 0;
  // One element of a whole answer's "choices".
  virtual void AppendChoice(std::string& out, size_t choice, const News& news,
                            const frontend::GenerateOutput& output) = 0;
  // Members of a whole answer behind its choices and usage, each with a comma before it.
  virtual void AppendExtras(std::string& out,
                            std::span<const frontend::GenerateOutput> outputs) const = 0;
  // "chat.completion.chunk" and the like.
  virtual const char* ObjectName(bool is_chunk) const = 0;
  // Of a choice that has ended; -1: answers do not say.
  virtual int64_t NumReasoningTokens(size_t choice,
                                     const frontend::GenerateOutput& output) const = 0;

  void BeginChunk(std::string& out) const;
  // Behind the choices: usage if each chunk carries it.
  void EndChunk(std::string& out, size_t choice, const frontend::GenerateOutput& output) const;
  // "finish_reason":...,"stop_reason":...
  void AppendFinish(std::string& out, size_t choice, const News& news,
                    const frontend::GenerateOutput& output) const;

  const CallFields& fields() const { return fields_; }
  const ApiContext& context() const { return *context_; }
  const text::Tokenizer* tokenizer() const { return context_->encoder->tokenizer(); }
  // Tokens by their ids: as was asked for, or because nobody knows their texts.
  bool as_token_ids() const { return fields_.tokens_as_token_ids || tokenizer() == nullptr; }
  const std::vector<TokenId>& prompt_tokens(size_t choice) const;

 private:
  struct Said {
    size_t text = 0;
    size_t tokens = 0;
    bool anything = false;
  };
  // Takes what is new of a choice.
  News Take(size_t choice, const frontend::GenerateOutput& output, bool is_last);
  int64_t NumOutputTokens(const frontend::GenerateOutput& output) const;
  void AppendUsage(std::string& out, std::span<const frontend::GenerateOutput> outputs) const;

  CallFields fields_;
  std::vector<frontend::GenerateRequest> requests_;
  const ApiContext* context_;
  std::vector<Said> said_;
  mutable std::string chunk_head_;  // made with the first chunk
};

}  // namespace moebius::serve
