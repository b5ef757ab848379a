#include "serve/live_call.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"

namespace moebius::serve {
namespace {

// A stream's piece is full with so many: what is left comes with the next.
constexpr size_t kPieceBytes = 256 << 10;

// Holds the call while the connection streams it; dropped before the last piece, the client left.
class StreamSource : public net::BodySource {
 public:
  explicit StreamSource(std::shared_ptr<LiveCall> call) : call_(std::move(call)) {}
  ~StreamSource() override { call_->Abandon(); }
  Piece Take() override { return call_->Take(); }

 private:
  const std::shared_ptr<LiveCall> call_;
};

ApiError InternalError(const std::exception& error) {
  LogError("a call failed: {}", error.what());
  return {500, std::string("the server failed on this call: ") + error.what(), "", "", {}};
}

// Of a request that no engine took. One that is well had no room for it; try again.
ApiError RefusalOf(const CallEnvironment& environment, const Error& error) {
  ApiError api = ToApiError(error);
  if (error.code() == ErrorCode::kUnavailable && environment.frontend->engine().Health()) {
    api.status = 429;
    api.retry_after_s = 1;
    environment.stats->OnQueueFull();
  }
  return api;
}

// None: it ended as answers do. An engine in another process refuses by such an end, too, before it
// has counted the prompt.
std::optional<ApiError> FailureOf(const CallEnvironment& environment,
                                  const frontend::GenerateOutput& output) {
  if (output.finish == engine::FinishReason::kError) {
    const Error error = output.error.value_or(Error(ErrorCode::kInternal, "the engine failed"));
    return output.usage.num_prompt_tokens == 0 ? RefusalOf(environment, error) : ToApiError(error);
  }
  if (output.finish == engine::FinishReason::kCancelled) {
    return ApiError{503, "the engine ended the request before it was done", "", "", 1};
  }
  return std::nullopt;
}

std::vector<frontend::GenerateOutput> TakeOutputs(
    const std::vector<std::unique_ptr<frontend::LiveAnswer>>& answers) {
  std::vector<frontend::GenerateOutput> outputs;
  outputs.reserve(answers.size());
  for (const auto& answer : answers) outputs.push_back(answer->TakeOutput());
  return outputs;
}

}  // namespace

LiveCall::LiveCall(const CallEnvironment* environment, int64_t id, std::shared_ptr<Reply> reply,
                   std::optional<int> data_parallel_rank)
    : environment_(environment),
      id_(id),
      reply_(std::move(reply)),
      data_parallel_rank_(data_parallel_rank),
      budget_(std::make_shared<frontend::ReadBudget>(environment->max_unread_bytes)) {}

LiveCall::~LiveCall() = default;

void LiveCall::Run(ParseCall parse, const std::string& body) {
  if (reply_->is_answered()) return;  // the client left while it waited, or its time is over
  try {
    CallResult parsed = parse(body, *environment_->api, reply_->request_id());
    if (!parsed) return Abort(parsed.error());
    Start(std::move(*parsed));
  } catch (const std::exception& error) {
    Abort(InternalError(error));
  }
}

void LiveCall::Start(std::unique_ptr<ApiCall> api) {
  const bool is_stream = api->is_stream();
  environment_->stats->OnCall(api->n());
  Result<Answers> answers = Submit(*api);
  if (!answers) return Abort(RefusalOf(*environment_, answers.error()));
  {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;  // meanwhile; its answers end with this scope
    has_ended_.assign(answers->size(), false);
    answers_ = std::move(*answers);
    api_ = std::move(api);
    is_streaming_ = is_stream;
  }
  if (is_stream) {
    reply_->Stream(std::make_unique<StreamSource>(shared_from_this()));
    reply_->exchange().Wake();  // news from before had nobody to wake
  } else {
    Collect();
  }
}

Result<LiveCall::Answers> LiveCall::Submit(const ApiCall& api) {
  std::function<void()> on_news;
  if (api.is_stream()) {
    on_news = [reply = reply_] { reply->exchange().Wake(); };
  } else {
    on_news = [this] { CollectSoon(); };  // no later than the answer, which is ours
  }
  const engine::News news = api.is_stream() ? engine::News::kAny : engine::News::kEnd;
  Answers answers;
  for (frontend::GenerateRequest request : api.requests()) {
    request.arrival = arrival();
    request.data_parallel_rank = data_parallel_rank_;
    MOEBIUS_ASSIGN(answers.emplace_back(),
                   frontend::LiveAnswer::Start(*environment_->frontend, request, on_news, news,
                                               api.is_stream() ? budget_ : nullptr));
  }
  return answers;
}

void LiveCall::Abort(const ApiError& error) {
  const std::lock_guard lock(mutex_);
  if (is_over_ || failure_) return;
  if (is_streaming_) {
    failure_ = error;
    answers_.clear();
    reply_->exchange().Wake();
    return;
  }
  reply_->SendError(error);
  End();
}

void LiveCall::Abandon() {
  const std::lock_guard lock(mutex_);
  if (is_over_) return;
  environment_->stats->OnClientGone();
  reply_->SetGone();
  End();
}

net::BodySource::Piece LiveCall::Take() {
  net::BodySource::Piece piece;
  int64_t num_tokens = 0;
  const std::lock_guard lock(mutex_);
  if (is_over_) return {"", true};
  try {
    if (!failure_) PollStreamed(&piece.bytes, &num_tokens);
    if (!failure_ && num_ended_ == answers_.size()) {
      piece.bytes += api_->OnEnd(TakeOutputs(answers_));
      piece.is_last = true;
    }
  } catch (const std::exception& error) {
    failure_ = InternalError(error);
  }
  if (failure_) {
    piece.bytes += api_->OnError(*failure_);
    piece.is_last = true;
  }
  if (!piece.bytes.empty()) environment_->stats->OnStreamPiece(num_tokens, piece.bytes.size());
  if (piece.is_last) End();
  return piece;
}

// Every choice in turn, from the one on that the last piece was full before.
void LiveCall::PollStreamed(std::string* bytes, int64_t* num_tokens) {
  for (bool is_news = true; is_news && bytes->empty() && !failure_;) {
    is_news = false;
    const size_t first = std::exchange(next_choice_, 0);
    for (size_t i = 0; i < answers_.size() && !failure_; ++i) {
      const size_t choice = (first + i) % answers_.size();
      if (has_ended_[choice]) continue;
      is_news = PollChoice(choice, bytes, num_tokens) || is_news;
      if (bytes->size() < kPieceBytes) continue;
      next_choice_ = (choice + 1) % answers_.size();
      return;
    }
  }
}

// False: nothing is new.
bool LiveCall::PollChoice(size_t choice, std::string* bytes, int64_t* num_tokens) {
  frontend::LiveAnswer& answer = *answers_[choice];
  const std::optional<frontend::Delta> delta = answer.Poll();
  if (!delta) return false;
  if (!delta->text.empty() || !delta->tokens.empty()) {
    *num_tokens += static_cast<int64_t>(delta->tokens.size());
    *bytes += api_->OnDelta(choice, *delta, answer.output());
  }
  if (!answer.finished()) return true;
  failure_ = FailureOf(*environment_, answer.output());
  if (failure_) return true;
  *bytes += api_->OnFinish(choice, answer.output());
  has_ended_[choice] = true;
  ++num_ended_;
  return true;
}

// On the engine's thread: many ends of one step are one Collect. (No strong pointer here: its end
// could be the call's, inside the answer that is telling us.)
void LiveCall::CollectSoon() {
  if (is_collecting_.exchange(true)) return;
  environment_->text_pool->Post([weak = weak_from_this()] {
    if (const auto call = weak.lock()) call->Collect();
  });
}

void LiveCall::Collect() {
  is_collecting_ = false;
  const std::lock_guard collecting(collect_mutex_);
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    if (is_over_ || api_ == nullptr) return;  // no api yet: Start comes here itself
    answers.swap(answers_);
  }
  try {
    std::optional<std::string> body = Gather(&answers);
    if (!body) {
      const std::lock_guard lock(mutex_);
      if (!is_over_) answers_.swap(answers);
      return;
    }
    reply_->SendJson(std::move(*body));
  } catch (const std::exception& error) {
    return Abort(InternalError(error));
  }
  const std::lock_guard lock(mutex_);
  if (!is_over_) End();
}

// The whole answer's body, if all choices have ended well. A failure ends the call here.
std::optional<std::string> LiveCall::Gather(Answers* answers) {
  bool is_complete = true;
  for (const auto& answer : *answers) {
    answer->Poll();
    if (!answer->finished()) {
      is_complete = false;
    } else if (const auto failure = FailureOf(*environment_, answer->output())) {
      Abort(*failure);
      return std::nullopt;
    }
  }
  if (!is_complete) return std::nullopt;
  return api_->Body(TakeOutputs(*answers));
}

// What the engine still does for it is cancelled with the answers.
void LiveCall::End() {
  is_over_ = true;
  if (budget_->was_exceeded()) environment_->stats->OnSlowReader();
  answers_.clear();
  if (is_streaming_) reply_->EndStream();
  environment_->on_end(id_);
}

}  // namespace moebius::serve
