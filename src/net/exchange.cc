#include "net/exchange.h"

#include <utility>

#include "base/log.h"

namespace moebius::net {
namespace {

// The last copy a handler lets go of without an answer is an answer too.
class HandlerExchange : public Exchange {
 public:
  explicit HandlerExchange(std::shared_ptr<PendingAnswer> answer) : answer_(std::move(answer)) {}
  HandlerExchange(const HandlerExchange&) = delete;
  HandlerExchange& operator=(const HandlerExchange&) = delete;
  ~HandlerExchange() override { answer_->Abandon(); }

  void Respond(HttpResponse response) override { answer_->Respond(std::move(response), nullptr); }
  void Stream(HttpResponse head, std::unique_ptr<BodySource> source) override {
    head.body.clear();
    answer_->Respond(std::move(head), std::move(source));
  }
  void Wake() override { answer_->Wake(); }
  void OnGone(std::function<void()> on_gone) override { answer_->OnGone(std::move(on_gone)); }

 private:
  std::shared_ptr<PendingAnswer> answer_;
};

}  // namespace

std::shared_ptr<Exchange> PendingAnswer::MakeExchange() {
  return std::make_shared<HandlerExchange>(shared_from_this());
}

bool PendingAnswer::is_answered() {
  const std::lock_guard lock(mutex_);
  return state_ == State::kAnswered;
}

bool PendingAnswer::is_abandoned() {
  const std::lock_guard lock(mutex_);
  return is_abandoned_;
}

void PendingAnswer::OnNews() {
  if (event_ != nullptr) event_->Set();
}

void PendingAnswer::Tell() {
  if (loop_->OnThread()) {
    OnNews();
  } else {
    loop_->Notify(shared_from_this());
  }
}

void PendingAnswer::Finish(bool is_sent) {
  event_ = nullptr;
  std::function<void()> on_gone;
  std::unique_ptr<BodySource> source;
  {
    const std::lock_guard lock(mutex_);
    state_ = is_sent ? State::kSent : State::kGone;
    on_gone = std::exchange(on_gone_, nullptr);
    source = std::move(source_);
  }
  source.reset();
  if (!is_sent && on_gone) on_gone();
}

void PendingAnswer::Respond(HttpResponse response, std::unique_ptr<BodySource> source) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kAnswered) LogError("http: a request was answered twice; once counts");
    if (state_ != State::kOpen) return;  // `source` is destroyed by the caller's thread then
    response_ = std::move(response);
    source_ = std::move(source);
    state_ = State::kAnswered;
  }
  Tell();
}

void PendingAnswer::Wake() { Tell(); }

void PendingAnswer::OnGone(std::function<void()> on_gone) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kSent) return;
    if (state_ != State::kGone) {
      on_gone_ = std::move(on_gone);
      return;
    }
  }
  if (on_gone) on_gone();
}

void PendingAnswer::Abandon() {
  {
    const std::lock_guard lock(mutex_);
    is_abandoned_ = true;
    if (state_ == State::kSent || state_ == State::kGone) return;
    if (state_ == State::kAnswered && source_ == nullptr) return;
  }
  Tell();
}

}  // namespace moebius::net
