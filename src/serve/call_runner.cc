#include "serve/call_runner.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <utility>

namespace moebius::serve {

CallRunner::CallRunner(const CallRunnerOptions& options, const CallEnvironment& environment)
    : options_(options), environment_(environment) {
  environment_.on_end = [this](int64_t id) {
    std::shared_ptr<LiveCall> ended;  // destroyed outside the lock
    const std::lock_guard lock(mutex_);
    if (const auto found = calls_.find(id); found != calls_.end()) {
      ended = std::move(found->second);
      calls_.erase(found);
    }
    if (calls_.empty()) emptied_.notify_all();
  };
  watch_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "calls");
    Watch();
  });
}

CallRunner::~CallRunner() { Stop(); }

void CallRunner::Run(ParseCall parse, std::string body, const std::shared_ptr<Reply>& reply,
                     std::optional<int> data_parallel_rank) {
  std::shared_ptr<LiveCall> call;
  {
    const std::lock_guard lock(mutex_);
    if (is_stopping_) return;  // the reply says so
    const int64_t id = next_id_++;
    call = std::make_shared<LiveCall>(&environment_, id, reply, data_parallel_rank);
    calls_.emplace(id, call);
    if (calls_.size() == 1) changed_.notify_one();
  }
  reply->exchange().OnGone([weak = std::weak_ptr(call)] {
    if (const auto alive = weak.lock()) alive->Abandon();
  });
  const size_t bytes = body.size();
  const auto text = std::make_shared<const std::string>(std::move(body));
  if (!environment_.text_pool->TryPost(bytes, [call, parse, text] { call->Run(parse, *text); })) {
    environment_.stats->OnQueueFull();
    call->Abort({429, "too many requests wait; try again later", "", "", 1});
  }
}

int64_t CallRunner::num_calls() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(calls_.size());
}

int64_t CallRunner::num_unread_bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [id, call] : calls_) bytes += call->unread_bytes();
  return bytes;
}

bool CallRunner::WaitUntilNone(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return emptied_.wait_until(lock, deadline, [this] { return calls_.empty(); });
}

int64_t CallRunner::AbortAll(const ApiError& error) {
  Calls calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
    emptied_.notify_all();
  }
  for (const auto& [id, call] : calls) call->Abort(error);
  return static_cast<int64_t>(calls.size());
}

void CallRunner::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_one();
  if (watch_.joinable()) watch_.join();
  AbortAll({503, "the server is shutting down", "", "", 1});
}

void CallRunner::Watch() {
  bool was_unhealthy = false;
  Clock::time_point next_health = Clock::now() + options_.health_period;
  std::unique_lock lock(mutex_);
  while (!is_stopping_) {
    if (calls_.empty()) {
      changed_.wait(lock, [&] { return is_stopping_ || !calls_.empty(); });
      next_health = Clock::now() + options_.health_period;
      was_unhealthy = false;
      continue;
    }
    const Clock::time_point next = NextLook(next_health);
    changed_.wait_until(lock, next, [&] { return is_stopping_; });
    const Clock::time_point now = Clock::now();
    const Calls expired = TakeExpired(now);
    if (calls_.empty()) emptied_.notify_all();
    lock.unlock();
    for (const auto& [id, call] : expired) {
      environment_.stats->OnTimeout();
      call->Abort({504,
                   fmt::format("the request was not done within {} ms (request timeout)",
                               options_.request_timeout.count()),
                   "",
                   "TimeoutError",
                   {}});
    }
    if (now >= next_health) {
      next_health = now + options_.health_period;
      const Status health = environment_.frontend->engine().Health();
      // The engine itself ends its requests when it fails; it has a period's time for that.
      if (!health && was_unhealthy) AbortAll(ToApiError(health.error()));
      was_unhealthy = !health;
    }
    lock.lock();
  }
}

// Calls arrive in order and have the same time: the first one's is over first.
CallRunner::Clock::time_point CallRunner::NextLook(Clock::time_point next_health) const {
  if (options_.request_timeout.count() == 0) return next_health;
  return std::min(next_health, calls_.begin()->second->arrival() + options_.request_timeout);
}

CallRunner::Calls CallRunner::TakeExpired(Clock::time_point now) {
  Calls expired;
  if (options_.request_timeout.count() == 0) return expired;
  while (!calls_.empty() && calls_.begin()->second->arrival() + options_.request_timeout <= now) {
    expired.insert(calls_.extract(calls_.begin()));
  }
  return expired;
}

}  // namespace moebius::serve
