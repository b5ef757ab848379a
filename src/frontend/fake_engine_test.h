// For tests of this room: an engine that plays back scripted tokens on a thread of its own, and a
// tokeniser whose tokens are single bytes (id = byte; id 256 is the special token "<end>").
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine_client.h"
#include "frontend/request.h"
#include "text/tokenizer.h"

namespace moebius::frontend {

constexpr TokenId kEndToken = 256;

std::unique_ptr<text::Tokenizer> MakeByteTokenizer();

// The bytes of a text as ids.
std::vector<TokenId> Ids(const std::string& text);

// What the engine answers to every request: a step a token, the end after the last one. The script
// repeats for ever if `endless`, until cancelled.
struct Script {
  std::vector<TokenId> tokens;
  engine::FinishReason finish = engine::FinishReason::kLength;
  std::optional<Error> error = std::nullopt;
  bool endless = false;
  size_t tokens_per_event = 1;
  int late_tokens = 0;  // events that still come after Cancel, as a step in flight causes
};

class FakeEngine : public engine::EngineClient {
 public:
  explicit FakeEngine(Script script);
  ~FakeEngine() override;

  const engine::EngineLimits& limits() const override { return limits_; }
  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override;
  void Cancel(engine::RequestId request, engine::FinishReason reason) override;
  engine::EngineStats Stats() const override { return {}; }
  moe::ExpertStats ExpertLoad() const override { return {}; }
  Status Health() const override;

  void SetUnhealthy() { unhealthy_ = true; }
  std::vector<TokenId> last_prompt() const;
  std::vector<engine::FinishReason> cancels() const;
  int64_t num_events() const { return num_events_.load(); }  // that sinks have taken, of tokens

 private:
  struct Cancelled {
    engine::RequestId request;
    engine::FinishReason reason;
  };
  void Play(engine::RequestId id, const engine::TokenSink& sink, int64_t num_prompt_tokens);
  std::optional<engine::FinishReason> CancelOf(engine::RequestId id) const;

  const Script script_;
  engine::EngineLimits limits_;
  std::atomic<bool> unhealthy_{false};
  std::atomic<int64_t> num_events_{0};
  mutable std::mutex mutex_;
  int64_t next_id_ = 0;
  std::vector<TokenId> last_prompt_;
  std::vector<Cancelled> cancelled_;
  std::vector<std::thread> threads_;
};

inline GenerateRequest TextRequest(const std::string& text) {
  GenerateRequest request;
  request.prompt = text;
  return request;
}

}  // namespace moebius::frontend
