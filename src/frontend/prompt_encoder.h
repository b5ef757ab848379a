// From prompts to token ids: a model folder's tokeniser and chat template. It needs no engine, so
// that what is wrong with a request can be said before weights are read. Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "frontend/request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moebius::frontend {

class PromptEncoder {
 public:
  // Without a tokeniser (null) only prompts of token ids work. Where the template is an error,
  // conversations get that error.
  PromptEncoder(std::unique_ptr<text::Tokenizer> tokenizer,
                Result<text::ChatTemplate> chat_template);

  // The token ids of a prompt. kNotFound: it needs a tokeniser or a chat template that the model's
  // folder lacks. kInvalidArgument: the template refuses the conversation.
  Result<std::vector<TokenId>> Encode(const Prompt& prompt) const;

  // The text that the chat template makes of a conversation. Errors as Encode's.
  Result<std::string> Render(const Conversation& conversation) const;

  // What the engine is asked for a request: its prompt and bad words encoded. Errors as Encode's,
  // or a stop string that cannot be looked for, or a bad word without text.
  Result<engine::RequestInput> MakeInput(const GenerateRequest& request) const;

  // Whether an engine with these limits would take the request; the error is the one it would give.
  Status Check(const GenerateRequest& request, const engine::EngineLimits& limits) const;

  const text::Tokenizer* tokenizer() const { return tokenizer_.get(); }  // null: none
  const text::ChatTemplate* chat_template() const {                      // null: none that works
    return chat_template_ ? &*chat_template_ : nullptr;
  }
  // Also if there is one that cannot be used.
  bool has_chat_template() const {
    return chat_template_ || chat_template_.error().code() != ErrorCode::kNotFound;
  }
  // Why conversations cannot be rendered, if so.
  Status TemplateStatus() const;

 private:
  Status AddBadWords(const std::vector<std::string>& words, engine::SamplingParams& sampling) const;

  std::unique_ptr<text::Tokenizer> tokenizer_;
  Result<text::ChatTemplate> chat_template_;
};

}  // namespace moebius::frontend
