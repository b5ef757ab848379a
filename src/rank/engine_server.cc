#include "rank/engine_server.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>

#include "rank/engine_messages.h"

namespace moebius::rank {
namespace {

// Tells the frontend how the engine is, where that has changed.
class StatsSender {
 public:
  StatsSender(FrameSocket* socket, const engine::EngineClient* engine)
      : socket_(socket), engine_(engine), thread_([this] {
          pthread_setname_np(pthread_self(), "stats");
          Loop();
        }) {}
  ~StatsSender() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
    }
    ending_.notify_all();
    thread_.join();
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    std::string last;
    while (!ending_.wait_for(lock, kStatsPeriod, [&] { return is_ending_; })) {
      // A frontend that stands still shall not find a heap of them.
      if (!socket_->is_idle()) continue;
      StatsMessage message{engine_->Stats(), engine_->ExpertLoad(), std::nullopt};
      if (const Status health = engine_->Health(); !health) message.fault = health.error();
      std::string frame = Encode(message);
      if (frame == last) continue;
      socket_->Send(frame);
      last = std::move(frame);
    }
  }

  FrameSocket* socket_;
  const engine::EngineClient* engine_;
  std::mutex mutex_;
  std::condition_variable ending_;
  bool is_ending_ = false;
  std::thread thread_;
};

// The frontend's numbers of requests, and the engine's.
class Requests {
 public:
  Requests(FrameSocket* socket, engine::EngineClient* engine) : socket_(socket), engine_(engine) {}

  void Submit(SubmitMessage message) {
    const int64_t request = message.request;
    const std::lock_guard lock(mutex_);
    const auto id = engine_->Submit(
        std::move(message.input),
        [this, request](const engine::TokenEvent& event) { OnEvent(request, event); });
    if (id) {
      ids_[request] = *id;
    } else {
      socket_->Send(Encode(RefusedMessage{request, id.error()}));
    }
  }

  void Cancel(const CancelMessage& message) {
    engine::RequestId id;
    {
      const std::lock_guard lock(mutex_);
      const auto found = ids_.find(message.request);
      if (found == ids_.end()) return;
      id = found->second;
    }
    engine_->Cancel(id, message.reason);
  }

 private:
  // On the engine's thread, which waits here until Submit has written the id down.
  void OnEvent(int64_t request, const engine::TokenEvent& event) {
    for (const std::string& frame : EncodeEvent(request, event)) socket_->Send(frame);
    if (!event.finish) return;
    const std::lock_guard lock(mutex_);
    ids_.erase(request);
  }

  FrameSocket* socket_;
  engine::EngineClient* engine_;
  std::mutex mutex_;
  std::unordered_map<int64_t, engine::RequestId> ids_;  // that have not ended
};

// OK: the frontend wants to end.
Status Serve(FrameSocket& socket, Requests& requests) {
  while (true) {
    MOEBIUS_ASSIGN(const std::string frame, socket.Receive());
    // Not moved out of its Result: GCC 12 then warns of parts that a message has not.
    Result<ToRank> message = DecodeToRank(frame);
    if (!message) return tl::unexpected(std::move(message).error());
    if (auto* submit = std::get_if<SubmitMessage>(&*message)) {
      requests.Submit(std::move(*submit));
    } else if (const auto* cancel = std::get_if<CancelMessage>(&*message)) {
      requests.Cancel(*cancel);
    } else if (std::holds_alternative<StopMessage>(*message)) {
      return {};
    } else {
      return MakeError(ErrorCode::kCorrupt, "a second start");
    }
  }
}

}  // namespace

Status ServeEngine(FrameSocket& socket, std::unique_ptr<engine::EngineClient> engine) {
  Requests requests(&socket, engine.get());
  socket.Send(Encode(ReadyMessage{engine->limits(), engine->Stats()}));
  Status status;
  {
    const StatsSender stats(&socket, engine.get());
    status = Serve(socket, requests);
  }
  engine.reset();
  return status;
}

}  // namespace moebius::rank
