#include "frontend/live_answer.h"

namespace moebius::frontend {

LiveAnswer::LiveAnswer(const Frontend& frontend, const GenerateRequest& request)
    : frontend_(&frontend), generation_(frontend.tokenizer(), request) {}

Result<std::unique_ptr<LiveAnswer>> LiveAnswer::Start(const Frontend& frontend,
                                                      const GenerateRequest& request,
                                                      std::function<void()> on_news,
                                                      engine::News news) {
  MOEBIUS_ASSIGN(engine::RequestInput input, frontend.encoder().MakeInput(request));
  std::unique_ptr<LiveAnswer> answer(new LiveAnswer(frontend, request));
  if (!request.stop.empty()) news = engine::News::kAny;
  MOEBIUS_ASSIGN(
      answer->id_,
      frontend.engine().Submit(std::move(input), answer->stream_.Sink(std::move(on_news), news)));
  return answer;
}

LiveAnswer::~LiveAnswer() {
  stream_.Mute();
  if (!finished() && id_.valid()) Cancel();
}

std::optional<Delta> LiveAnswer::Poll() {
  const std::optional<engine::TokenChunk> chunk = stream_.TryNext();
  if (!chunk) return std::nullopt;
  const Delta delta = generation_.Push(*chunk);
  if (generation_.stopped() && !finished() && !std::exchange(told_engine_, true)) {
    frontend_->engine().Cancel(id_, engine::FinishReason::kStop);
  }
  return delta;
}

void LiveAnswer::Cancel() { frontend_->engine().Cancel(id_); }

}  // namespace moebius::frontend
