#include "frontend/frontend.h"

#include <chrono>
#include <utility>

#include "engine/token_stream.h"
#include "frontend/generation.h"

namespace moebius::frontend {
namespace {

using Clock = std::chrono::steady_clock;

// How long to wait for news before asking whether the engine is alive: a request may rightly wait
// long for its turn.
constexpr std::chrono::seconds kHealthPeriod{1};

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// When each token reached us: written by the engine's thread before the tokens are handed on, read
// by the consumer after it took the last of them.
struct Arrivals {
  std::vector<Clock::time_point> times;
};

Timing MakeTiming(const Arrivals& arrivals, Clock::time_point start, size_t num_tokens) {
  Timing timing;
  timing.total = Seconds(Clock::now() - start);
  const size_t count = std::min(num_tokens, arrivals.times.size());
  if (count > 0) timing.first_token = Seconds(arrivals.times[0] - start);
  for (size_t i = 1; i < count; ++i) {
    timing.gaps.push_back(Seconds(arrivals.times[i] - arrivals.times[i - 1]));
  }
  return timing;
}

}  // namespace

Frontend::Frontend(std::unique_ptr<engine::EngineClient> engine,
                   std::unique_ptr<text::Tokenizer> tokenizer,
                   Result<text::ChatTemplate> chat_template)
    : tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      engine_(std::move(engine)) {}

Result<std::string> Frontend::Render(const Conversation& conversation) const {
  if (!has_chat_template()) {
    return MakeError(ErrorCode::kNotFound,
                     "messages: the model's folder has no chat template; give a plain prompt");
  }
  if (!chat_template_) return tl::unexpected(chat_template_.error());
  return chat_template_->Apply(conversation.messages, conversation.tools, conversation.options);
}

Result<std::vector<TokenId>> Frontend::Encode(const Prompt& prompt) const {
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return *ids;
  if (tokenizer_ == nullptr) {
    return MakeError(
        ErrorCode::kNotFound,
        "prompt: the model's folder has no tokenizer.json; give token ids instead of text");
  }
  if (const auto* text = std::get_if<std::string>(&prompt)) return tokenizer_->Encode(*text, true);
  MOEBIUS_ASSIGN(const std::string text, Render(std::get<Conversation>(prompt)));
  return tokenizer_->Encode(text, false);
}

Status Frontend::CheckRequest(const GenerateRequest& request) const {
  if (!request.stop.empty() && tokenizer_ == nullptr) {
    return MakeError(ErrorCode::kNotFound,
                     "stop: the model's folder has no tokenizer.json, so there is no text to find "
                     "a stop string in; use stop_token_ids");
  }
  return CheckStopStrings(request.stop);
}

Result<GenerateOutput> Frontend::Generate(const GenerateRequest& request, const OnDelta& on_delta,
                                          const std::stop_token& cancel) const {
  const Clock::time_point start = Clock::now();
  MOEBIUS_TRY(CheckRequest(request));
  engine::RequestInput input;
  MOEBIUS_ASSIGN(input.prompt, Encode(request.prompt));
  input.sampling = request.sampling;
  input.cache_salt = request.cache_salt;
  input.priority = request.priority;

  Generation generation(tokenizer_.get(), request);
  engine::TokenStream stream;
  const auto arrivals = std::make_shared<Arrivals>();
  MOEBIUS_ASSIGN(const engine::RequestId id,
                 engine_->Submit(std::move(input), [arrivals, sink = stream.Sink()](
                                                       const engine::TokenEvent& event) {
                   arrivals->times.insert(arrivals->times.end(), event.tokens.size(), Clock::now());
                   sink(event);
                 }));
  const std::stop_callback on_cancel(cancel, [this, id] { engine_->Cancel(id); });

  bool told_engine = false;
  while (!generation.finished()) {
    const Result<engine::TokenChunk> chunk = stream.Next(kHealthPeriod);
    if (!chunk) {
      if (chunk.error().code() != ErrorCode::kDeadline) return tl::unexpected(chunk.error());
      MOEBIUS_TRY(engine_->Health());
      continue;
    }
    const Delta delta = generation.Push(*chunk);
    if (on_delta && (!delta.text.empty() || !delta.tokens.empty())) on_delta(delta);
    if (generation.stopped() && !generation.finished() && !std::exchange(told_engine, true)) {
      engine_->Cancel(id, engine::FinishReason::kStop);
    }
  }
  GenerateOutput output = std::move(generation.output());
  output.timing = MakeTiming(*arrivals, start, output.token_ids.size());
  return output;
}

}  // namespace moebius::frontend
