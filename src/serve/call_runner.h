// All completion calls of a server: takes them in, keeps them until their end, and ends those whose
// time is over, whose engine died without a word or whose server stops. Owned by the server; any
// thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "serve/live_call.h"

namespace moebius::serve {

struct CallRunnerOptions {
  std::chrono::milliseconds request_timeout{0};  // from a call's arrival to its end; 0: none
  // How often the engine's health is asked for; unhealthy twice in a row ends every call.
  std::chrono::milliseconds health_period{1000};
};

class CallRunner {
 public:
  // `environment` without on_end.
  CallRunner(const CallRunnerOptions& options, const CallEnvironment& environment);
  ~CallRunner();  // Stop

  // Answers `reply` in time: at once with 429 if too many wait. `data_parallel_rank`: whom the
  // client wants to answer, if it says.
  void Run(ParseCall parse, std::string body, const std::shared_ptr<Reply>& reply,
           std::optional<int> data_parallel_rank = std::nullopt);

  int64_t num_calls() const;
  int64_t num_unread_bytes() const;  // of all streams
  // False: there were calls until then.
  bool WaitUntilNone(std::chrono::steady_clock::time_point deadline);

  // Ends every call with this error. Returns how many there were.
  int64_t AbortAll(const ApiError& error);

  // Ends the watch and every call. Posted text work must have stopped.
  void Stop();

 private:
  using Clock = std::chrono::steady_clock;
  using Calls = std::map<int64_t, std::shared_ptr<LiveCall>>;  // in the order of arrival

  void Watch();
  Clock::time_point NextLook(Clock::time_point next_health) const;
  Calls TakeExpired(Clock::time_point now);

  const CallRunnerOptions options_;
  CallEnvironment environment_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable emptied_;
  Calls calls_;
  int64_t next_id_ = 0;
  bool is_stopping_ = false;
  std::thread watch_;
};

}  // namespace moebius::serve
