// The one path from a prompt to an answer, for the terminal and for a server: chat template,
// tokeniser (PromptEncoder), engine, incremental text, stop strings. Owned by the program; any
// thread may call any function, and many at once (every call works on the caller's thread and waits
// only for the engine).
#pragma once

#include <functional>
#include <memory>
#include <stop_token>

#include "base/result.h"
#include "engine/engine_client.h"
#include "frontend/prompt_encoder.h"
#include "frontend/request.h"

namespace moebius::frontend {

// Called on the thread that called Generate.
using OnDelta = std::function<void(const Delta&)>;

class Frontend {
 public:
  Frontend(std::unique_ptr<engine::EngineClient> engine, PromptEncoder encoder);

  // Answers a request; `on_delta` (may be empty) hears of every piece as it comes. A request that
  // cannot start is an error that names the field (kInvalidArgument) or says why it was refused
  // (kUnavailable). One that fails or is cancelled on the way is an output with what came until
  // then (finish, error). `cancel` ends it early.
  Result<GenerateOutput> Generate(const GenerateRequest& request, const OnDelta& on_delta = {},
                                  const std::stop_token& cancel = {}) const;

  const PromptEncoder& encoder() const { return encoder_; }
  const text::Tokenizer* tokenizer() const { return encoder_.tokenizer(); }  // null: none
  engine::EngineClient& engine() const { return *engine_; }

 private:
  PromptEncoder encoder_;
  std::unique_ptr<engine::EngineClient> engine_;  // last: its threads end first
};

}  // namespace moebius::frontend
