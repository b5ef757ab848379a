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

Frontend::Frontend(std::unique_ptr<engine::EngineClient> engine, PromptEncoder encoder)
    : encoder_(std::move(encoder)), engine_(std::move(engine)) {}

Result<GenerateOutput> Frontend::Generate(const GenerateRequest& request, const OnDelta& on_delta,
                                          const std::stop_token& cancel) const {
  const Clock::time_point start = Clock::now();
  MOEBIUS_ASSIGN(engine::RequestInput input, encoder_.MakeInput(request));
  Generation generation(tokenizer(), request);
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
