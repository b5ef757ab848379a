#include "frontend/live_answer.h"

namespace moebius::frontend {

LiveAnswer::LiveAnswer(const Frontend& frontend, const GenerateRequest& request,
                       std::shared_ptr<ReadBudget> budget)
    : frontend_(&frontend),
      budget_(std::move(budget)),
      generation_(frontend.tokenizer(), request) {}

Result<std::unique_ptr<LiveAnswer>> LiveAnswer::Start(const Frontend& frontend,
                                                      const GenerateRequest& request,
                                                      std::function<void()> on_news,
                                                      engine::News news,
                                                      std::shared_ptr<ReadBudget> budget) {
  MOEBIUS_ASSIGN(engine::RequestInput input, frontend.encoder().MakeInput(request));
  std::unique_ptr<LiveAnswer> answer(new LiveAnswer(frontend, request, std::move(budget)));
  if (!request.stop.empty()) news = engine::News::kAny;
  engine::TokenSink sink = answer->stream_.Sink(std::move(on_news), news);
  if (answer->budget_ != nullptr) {
    sink = WithinBudget(answer->budget_, &frontend.engine(), std::move(sink));
  }
  MOEBIUS_ASSIGN(answer->id_, frontend.engine().Submit(std::move(input), std::move(sink)));
  return answer;
}

LiveAnswer::~LiveAnswer() {
  stream_.Mute();
  if (!finished() && id_.valid()) Cancel();
}

std::optional<Delta> LiveAnswer::Poll() {
  if (budget_ != nullptr) generation_.ForgetLogprobs();
  const std::optional<engine::TokenChunk> chunk =
      budget_ != nullptr ? NextSlice() : stream_.TryNext();
  if (!chunk) return std::nullopt;
  const Delta delta = generation_.Push(*chunk);
  if (generation_.stopped() && !finished() && !std::exchange(told_engine_, true)) {
    frontend_->engine().Cancel(id_, engine::FinishReason::kStop);
  }
  return delta;
}

// Whoever was away comes back to much; said at once, it would keep all others of its thread
// waiting.
std::optional<engine::TokenChunk> LiveAnswer::NextSlice() {
  if (!rest_) {
    rest_ = stream_.TryNext();
    num_sliced_ = 0;
  }
  if (!rest_) return std::nullopt;
  const size_t begin = num_sliced_;
  int64_t bytes = 0;
  for (; num_sliced_ < rest_->tokens.size() && bytes < kSliceBytes; ++num_sliced_) {
    const bool has_logprobs = num_sliced_ < rest_->logprobs.size();
    bytes +=
        TokenBytes(has_logprobs, has_logprobs ? rest_->logprobs[num_sliced_].top_tokens.size() : 0);
  }
  budget_->Take(bytes);
  const bool is_all = num_sliced_ == rest_->tokens.size();
  if (begin == 0 && is_all) return std::exchange(rest_, std::nullopt);
  engine::TokenChunk slice;
  slice.tokens.assign(rest_->tokens.begin() + static_cast<ptrdiff_t>(begin),
                      rest_->tokens.begin() + static_cast<ptrdiff_t>(num_sliced_));
  for (size_t i = begin; i < num_sliced_ && i < rest_->logprobs.size(); ++i) {
    slice.logprobs.push_back(std::move(rest_->logprobs[i]));
  }
  slice.prompt_logprobs = std::exchange(rest_->prompt_logprobs, {});
  slice.usage = rest_->usage;
  if (!is_all) return slice;
  slice.finish = rest_->finish;
  slice.stop_token = rest_->stop_token;
  slice.error = std::move(rest_->error);
  rest_.reset();
  return slice;
}

void LiveAnswer::Cancel() { frontend_->engine().Cancel(id_); }

}  // namespace moebius::frontend
