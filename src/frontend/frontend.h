// The one path from a prompt to an answer, for the terminal and for a server: chat template,
// tokeniser, engine, incremental text, stop strings. Owned by the program; any thread may call any
// function, and many at once (every call works on the caller's thread and waits only for the
// engine).
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "frontend/request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moebius::frontend {

// Called on the thread that called Generate.
using OnDelta = std::function<void(const Delta&)>;

class Frontend {
 public:
  // Without a tokeniser (null) only prompts of token ids work and answers have no text. Where the
  // template is an error, conversations get that error.
  Frontend(std::unique_ptr<engine::EngineClient> engine, std::unique_ptr<text::Tokenizer> tokenizer,
           Result<text::ChatTemplate> chat_template);

  // The token ids of a prompt. kNotFound: it needs a tokeniser or a chat template that the model's
  // folder lacks. kInvalidArgument: the template refuses the conversation.
  Result<std::vector<TokenId>> Encode(const Prompt& prompt) const;

  // The text that the chat template makes of a conversation. Errors as Encode's.
  Result<std::string> Render(const Conversation& conversation) const;

  // Answers a request; `on_delta` (may be empty) hears of every piece as it comes. A request that
  // cannot start is an error that names the field (kInvalidArgument) or says why it was refused
  // (kUnavailable). One that fails or is cancelled on the way is an output with what came until
  // then (finish, error). `cancel` ends it early.
  Result<GenerateOutput> Generate(const GenerateRequest& request, const OnDelta& on_delta = {},
                                  const std::stop_token& cancel = {}) const;

  const text::Tokenizer* tokenizer() const { return tokenizer_.get(); }  // null: none
  // Also if there is one that cannot be used.
  bool has_chat_template() const {
    return chat_template_ || chat_template_.error().code() != ErrorCode::kNotFound;
  }
  engine::EngineClient& engine() const { return *engine_; }

 private:
  Status CheckRequest(const GenerateRequest& request) const;

  std::unique_ptr<text::Tokenizer> tokenizer_;
  Result<text::ChatTemplate> chat_template_;
  std::unique_ptr<engine::EngineClient> engine_;  // last: its threads end first
};

}  // namespace moebius::frontend
