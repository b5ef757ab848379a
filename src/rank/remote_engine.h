// An engine in another process, behind a connection whose other end is in ServeEngine. Any thread
// may call it. A thread of its own reads what comes, and calls the sinks; where the connection ends
// before all requests have, they end with kError (kCancelled if the user wanted the end).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "rank/engine_messages.h"
#include "rank/frame_socket.h"

namespace moebius::rank {

class RemoteEngine final : public engine::EngineClient {
 public:
  struct Options {
    engine::StepObserver on_step;    // may be empty; the reading thread calls it
    std::function<void()> on_ready;  // the ReadyMessage has come, or never will; may be empty
    // How long after an unwanted end of the connection somebody may say why (Fail).
    std::chrono::milliseconds patience{0};
  };
  // The other side owes a ReadyMessage.
  RemoteEngine(std::unique_ptr<FrameSocket> socket, Options options);
  // Ends every request as cancelled; waits for the other side to do so, but not for ever.
  ~RemoteEngine() override;

  bool is_ready() const;
  // Valid from then on, and the same for ever; so are the calls below.
  const engine::EngineLimits& limits() const override { return limits_; }

  // kUnsupported: a constraint, which cannot travel yet. kUnavailable: max_num_seqs and
  // max_num_waiting requests are under way, or Health says why. Where the engine's own count (of
  // those that have not begun) refuses it, it ends at once with kError.
  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override;
  void Cancel(engine::RequestId request,
              engine::FinishReason reason = engine::FinishReason::kCancelled) override;
  // As of at most kStatsPeriod ago.
  engine::EngineStats Stats() const override;
  moe::ExpertStats ExpertLoad() const override;
  Status Health() const override;

  // Gives the engine up: every request ends with `error`, on the reading thread, and Health says
  // it. The first call counts. Any thread; does not wait.
  void Fail(const Error& error);

 private:
  struct Live {
    engine::TokenSink sink;
    engine::Usage usage;                                // as of its last event
    std::vector<engine::LogprobEntry> prompt_logprobs;  // that came before their event
  };

  void ReadLoop();
  Status ReadMessages();
  void OnMessage(ReadyMessage& message);
  void OnMessage(RefusedMessage& message);
  void OnMessage(EventMessage& message);
  void OnMessage(StatsMessage& message);
  void OnMessage(StepReport& message);
  void EndAll(const Error& error);

  const std::unique_ptr<FrameSocket> socket_;
  const Options options_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // has_ended_, is_stopping_, fault_
  std::unordered_map<int64_t, std::shared_ptr<Live>> requests_;
  int64_t next_request_ = 0;
  bool is_ready_ = false;
  bool is_stopping_ = false;
  bool has_ended_ = false;      // the reading thread; no request is taken any more
  std::optional<Error> fault_;  // of the connection; then stats_.fault counts no more
  StatsMessage stats_;
  engine::EngineLimits limits_;  // const once is_ready_

  std::thread reader_;  // last: it uses the rest
};

}  // namespace moebius::rank
