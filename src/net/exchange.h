// What stands between a handler and the connection that it answers: the connection's side is
// PendingAnswer, the handler holds an Exchange made of it. They part at any time: what the handler
// says after the connection's end has no effect.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "net/event_loop.h"
#include "net/http_server.h"

namespace moebius::net {

class PendingAnswer : public LoopTask, public std::enable_shared_from_this<PendingAnswer> {
 public:
  // `event` is set on the loop's thread when there is news, until Finish.
  PendingAnswer(std::shared_ptr<EventLoop> loop, Event* event)
      : loop_(std::move(loop)), event_(event) {}

  std::shared_ptr<Exchange> MakeExchange();

  // The connection's side, on the loop's thread.
  bool is_answered();
  // Once is_answered; the source is null for an answer that is not streamed.
  HttpResponse TakeHead() { return std::move(response_); }
  BodySource* source() { return source_.get(); }
  // Nobody can wake the stream any more.
  bool is_abandoned();
  // The end. Not sent wholly: runs on_gone. Destroys the source.
  void Finish(bool is_sent);
  void OnNews() override;

  // The handler's side, any thread.
  void Respond(HttpResponse response, std::unique_ptr<BodySource> source);
  void Wake();
  void OnGone(std::function<void()> on_gone);
  void Abandon();

 private:
  void Tell();

  const std::shared_ptr<EventLoop> loop_;
  Event* event_;  // the loop's thread only

  std::mutex mutex_;
  enum class State { kOpen, kAnswered, kSent, kGone };
  // Guarded by mutex_ while kOpen; response_ and source_ are the connection's from kAnswered on.
  State state_ = State::kOpen;
  bool is_abandoned_ = false;
  HttpResponse response_;
  std::unique_ptr<BodySource> source_;
  std::function<void()> on_gone_;
};

}  // namespace moebius::net
