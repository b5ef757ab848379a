// For tests: an engine that a test holds, lets go, fails or kills. Every request is answered with
// its own prompt's tokens, round and round, one a step, so that answers cannot be mixed up unseen.
// Log probabilities are made up: the likeliest tokens are 0, 1, 2 ...
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine_client.h"

namespace moebius::serve {

class TestEngine : public engine::EngineClient {
 public:
  explicit TestEngine(int64_t vocab_size, int64_t max_requests = 1 << 20)
      : max_requests_(max_requests) {
    limits_.vocab_size = vocab_size;
    limits_.max_model_len = 1 << 20;
    limits_.max_num_seqs = 256;
    limits_.data_parallel_size = 4;
    thread_ = std::thread([this] { Run(); });
  }
  ~TestEngine() override {
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  const engine::EngineLimits& limits() const override { return limits_; }

  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override {
    MOEBIUS_TRY(engine::Validate(input, limits_));
    const std::lock_guard lock(mutex_);
    if (fault_) return tl::unexpected(*fault_);
    if (static_cast<int64_t>(requests_.size()) >= max_requests_) {
      return MakeError(ErrorCode::kUnavailable, "{} requests wait", requests_.size());
    }
    const engine::RequestId id(next_id_++);
    last_wish_ = input.data_parallel_rank;
    const auto max_tokens = static_cast<size_t>(input.sampling.max_tokens.value_or(16));
    if (requests_.empty()) last_step_ = std::chrono::steady_clock::now();
    requests_.emplace(id, Running{std::move(input.prompt), std::move(sink), max_tokens,
                                  input.sampling.num_logprobs, 0});
    changed_.notify_all();
    return id;
  }

  void Cancel(engine::RequestId id, engine::FinishReason reason) override {
    const std::lock_guard lock(mutex_);
    cancels_.emplace(id, reason);
    changed_.notify_all();
  }

  engine::EngineStats Stats() const override {
    const std::lock_guard lock(mutex_);
    engine::EngineStats stats;
    stats.num_running = static_cast<int64_t>(requests_.size());
    stats.num_cancelled = num_cancelled_;
    stats.num_steps = num_steps_;
    stats.has_work = !requests_.empty();
    if (stats.has_work) {
      stats.seconds_without_progress =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - last_step_).count();
    }
    return stats;
  }
  moe::ExpertStats ExpertLoad() const override { return {2, 4}; }
  Status Health() const override {
    const std::lock_guard lock(mutex_);
    if (fault_) return tl::unexpected(*fault_);
    return {};
  }

  // No steps until Release(): as a device that hangs. Cancels are still heard.
  void Hold() { Set(&is_held_, true); }
  void Release() { Set(&is_held_, false); }
  // Every request ends as failed.
  void FailAll(Error error) {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(error);
    changed_.notify_all();
  }
  // It is unhealthy; requests hear nothing any more.
  void Die(Error error) {
    const std::lock_guard lock(mutex_);
    fault_ = std::move(error);
    is_dead_ = true;
  }
  void set_step_time(std::chrono::microseconds time) { step_time_ = time; }

  // Of the last request: which rank it asked for.
  std::optional<int> last_wish() const {
    const std::lock_guard lock(mutex_);
    return last_wish_;
  }
  int64_t num_active() const { return Stats().num_running; }
  int64_t num_cancelled() const { return Stats().num_cancelled; }

 private:
  struct Running {
    std::vector<TokenId> prompt;
    engine::TokenSink sink;
    size_t max_tokens = 0;
    int32_t num_logprobs = -1;
    size_t num_done = 0;
  };

  void Set(bool* flag, bool value) {
    const std::lock_guard lock(mutex_);
    *flag = value;
    changed_.notify_all();
  }

  // Sinks are called without the mutex: only this thread takes requests out.
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] {
        return is_stopping_ ||
               (!is_dead_ && (failure_ || !cancels_.empty() || (!is_held_ && !requests_.empty())));
      });
      if (is_stopping_) break;
      const auto cancels = std::exchange(cancels_, {});
      const auto failure = std::exchange(failure_, std::nullopt);
      const bool is_held = is_held_;
      std::vector<engine::RequestId> ids;
      for (const auto& [id, request] : requests_) ids.push_back(id);
      for (const engine::RequestId id : ids) {
        Running& request = requests_.at(id);
        const auto cancel = cancels.find(id);
        lock.unlock();
        const bool is_over = Step(id, request, cancel == cancels.end() ? nullptr : &cancel->second,
                                  failure ? &*failure : nullptr, is_held);
        lock.lock();
        if (is_over) requests_.erase(id);
        if (cancel != cancels.end()) ++num_cancelled_;
      }
      if (!is_held) {
        ++num_steps_;
        last_step_ = std::chrono::steady_clock::now();
      }
      if (const auto pause = step_time_.load(); pause.count() > 0) {
        lock.unlock();
        std::this_thread::sleep_for(pause);
        lock.lock();
      }
    }
    lock.unlock();
    for (auto& [id, request] : requests_) End(id, request, engine::FinishReason::kCancelled);
  }

  bool Step(engine::RequestId id, Running& request, const engine::FinishReason* cancel,
            const Error* failure, bool is_held) {
    if (cancel != nullptr) return End(id, request, *cancel);
    if (failure != nullptr) return End(id, request, engine::FinishReason::kError, failure);
    if (is_held) return false;
    const TokenId token = request.prompt[request.num_done++ % request.prompt.size()];
    engine::TokenEvent event = EventOf(id, request);
    event.tokens = std::span(&token, 1);
    const auto num_top = static_cast<size_t>(std::max(request.num_logprobs, 0));
    std::vector<TokenId> top(num_top);
    std::iota(top.begin(), top.end(), 0);
    const std::vector<float> values(num_top, -1.5F);
    const engine::TokenLogprobs logprobs{token, -0.5F, 1, top, values};
    if (request.num_logprobs >= 0) event.logprobs = std::span(&logprobs, 1);
    if (request.num_done >= request.max_tokens) event.finish = engine::FinishReason::kLength;
    request.sink(event);
    return event.finish.has_value();
  }

  bool End(engine::RequestId id, Running& request, engine::FinishReason reason,
           const Error* error = nullptr) {
    engine::TokenEvent event = EventOf(id, request);
    event.finish = reason;
    event.error = error;
    request.sink(event);
    return true;
  }

  static engine::TokenEvent EventOf(engine::RequestId id, const Running& request) {
    engine::TokenEvent event;
    event.request = id;
    event.usage.num_prompt_tokens = static_cast<int64_t>(request.prompt.size());
    event.usage.num_output_tokens = static_cast<int64_t>(request.num_done);
    return event;
  }

  const int64_t max_requests_;
  engine::EngineLimits limits_;
  std::atomic<std::chrono::microseconds> step_time_{std::chrono::microseconds(0)};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<engine::RequestId, Running> requests_;
  std::map<engine::RequestId, engine::FinishReason> cancels_;
  std::optional<Error> failure_;
  std::optional<Error> fault_;
  std::chrono::steady_clock::time_point last_step_;
  int64_t next_id_ = 0;
  std::optional<int> last_wish_;
  int64_t num_cancelled_ = 0;
  int64_t num_steps_ = 0;
  bool is_held_ = false;
  bool is_dead_ = false;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace moebius::serve
