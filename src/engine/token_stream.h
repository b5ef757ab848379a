// A request's events as something to wait for: the pull side of a TokenSink. The engine's thread
// appends, one consumer takes; what the consumer has not taken is merged, so the buffer is bounded
// by the request's own output. Copies share one buffer; either side may outlive the other.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "engine/request.h"

namespace moebius::engine {

// TokenLogprobs that own their lists.
struct LogprobEntry {
  TokenId token = -1;
  float logprob = 0.0f;
  int32_t rank = 0;
  std::vector<TokenId> top_tokens;
  std::vector<float> top_logprobs;
  bool operator==(const LogprobEntry&) const = default;
};

// Everything that arrived since the last Next.
struct TokenChunk {
  std::vector<TokenId> tokens;
  std::vector<LogprobEntry> logprobs;         // one a token if asked for, else empty
  std::vector<LogprobEntry> prompt_logprobs;  // in the first chunk with tokens, as TokenEvent's
  std::optional<FinishReason> finish;
  std::optional<TokenId> stop_token;
  std::optional<Error> error;
  Usage usage;
};

// What a consumer that does not wait is told of.
enum class News {
  kAny,  // something has arrived, for the first time since the last take
  kEnd,  // the last event has
};

class TokenStream {
 public:
  TokenStream();

  // Give it to EngineClient::Submit, once.
  TokenSink Sink() const;
  // The same; `on_news` is called on the engine's thread when there is news of that kind. It must
  // be quick and must not call this stream. Never again once Mute has returned.
  TokenSink Sink(std::function<void()> on_news, News news) const;
  void Mute();

  // Takes what has arrived; none: nothing since the last take, or all has been taken.
  std::optional<TokenChunk> TryNext();

  // Waits until something has arrived and takes all of it. kDeadline after `timeout`; kNotFound
  // when the finishing chunk has been taken already.
  Result<TokenChunk> Next(std::chrono::milliseconds timeout);

  // Waits for the end and gives the whole output at once. kDeadline when `timeout` passes first
  // (what arrived is lost).
  Result<TokenChunk> Collect(std::chrono::milliseconds timeout);

 private:
  struct Buffer;
  std::shared_ptr<Buffer> buffer_;
};

}  // namespace moebius::engine
