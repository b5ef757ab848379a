// One answer in the making: takes tokens as the engine sends them, gives text as it becomes
// certain. Knows nothing of threads or of who asks; owned by one request, one thread at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/token_stream.h"
#include "frontend/request.h"
#include "frontend/stop_strings.h"
#include "text/detokenizer.h"

namespace moebius::frontend {

class Generation {
 public:
  // `tokenizer` (null: no text, only ids) must outlive this; `request` need not. The request's stop
  // strings passed CheckStopStrings.
  Generation(const text::Tokenizer* tokenizer, const GenerateRequest& request);

  // Takes the next chunk. The delta's views live until the next call. After a stop string, the rest
  // of this chunk and the tokens of later ones are dropped; they count nowhere.
  Delta Push(const engine::TokenChunk& chunk);

  // Those that have come, which are most of what an answer holds.
  void ForgetLogprobs();

  // A stop string was seen: nothing more is wanted of the engine.
  bool stopped() const { return stops_.matched(); }
  // The engine's last chunk has come.
  bool finished() const { return finished_; }

  // What came so far; timing is the caller's to fill.
  const GenerateOutput& output() const { return output_; }
  GenerateOutput& output() { return output_; }

 private:
  void PushToken(TokenId token, bool in_text);
  TokenLogprob MakeLogprob(const engine::LogprobEntry& entry) const;
  void Finish(const engine::TokenChunk& chunk);
  std::string BytesOf(TokenId token) const;

  const text::Tokenizer* tokenizer_;
  std::optional<text::Detokenizer> detokenizer_;
  StopStrings stops_;
  size_t min_tokens_;
  bool include_stop_;
  bool finished_ = false;
  GenerateOutput output_;
};

}  // namespace moebius::frontend
