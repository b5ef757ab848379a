// For tests of this room: an engine whose every event is the test's word. One thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/engine_client.h"

namespace moebius::rank {

class HandEngine : public engine::EngineClient {
 public:
  HandEngine() {
    limits_.vocab_size = 1 << 20;
    limits_.max_model_len = 1 << 20;
    limits_.max_num_seqs = 8;
    limits_.max_num_waiting = 100;
  }
  ~HandEngine() override {
    while (!requests_.empty()) {
      End(requests_.begin()->first, engine::FinishReason::kCancelled);
    }
  }

  const engine::EngineLimits& limits() const override { return limits_; }
  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override {
    MOEBIUS_TRY(engine::Validate(input, limits_));
    if (fault_) return tl::unexpected(*fault_);
    if (static_cast<int64_t>(requests_.size()) >= capacity_) {
      return MakeError(ErrorCode::kUnavailable, "{} requests wait", requests_.size());
    }
    const engine::RequestId id(next_id_++);
    requests_[id] = {std::move(input), std::move(sink)};
    return id;
  }
  void Cancel(engine::RequestId id, engine::FinishReason reason) override {
    cancels_.emplace_back(id, reason);
    if (requests_.contains(id)) End(id, reason);
  }
  engine::EngineStats Stats() const override { return stats_; }
  moe::ExpertStats ExpertLoad() const override { return experts_; }
  Status Health() const override {
    if (fault_) return tl::unexpected(*fault_);
    return {};
  }

  void Say(engine::RequestId id, const std::vector<TokenId>& tokens,
           std::optional<engine::FinishReason> finish = std::nullopt) {
    engine::TokenEvent event;
    event.request = id;
    event.tokens = tokens;
    event.finish = finish;
    const engine::TokenSink sink = requests_.at(id).sink;
    if (finish) requests_.erase(id);
    sink(event);
  }
  void End(engine::RequestId id, engine::FinishReason reason) { Say(id, {}, reason); }

  std::vector<engine::RequestId> ids() const {
    std::vector<engine::RequestId> ids;
    for (const auto& [id, request] : requests_) ids.push_back(id);
    return ids;
  }
  const engine::RequestInput& input(engine::RequestId id) const { return requests_.at(id).input; }
  const auto& cancels() const { return cancels_; }

  engine::EngineLimits limits_;
  engine::EngineStats stats_;
  moe::ExpertStats experts_;
  std::optional<Error> fault_;
  int64_t capacity_ = 1 << 20;

 private:
  struct Request {
    engine::RequestInput input;
    engine::TokenSink sink;
  };
  std::map<engine::RequestId, Request> requests_;
  std::vector<std::pair<engine::RequestId, engine::FinishReason>> cancels_;
  int64_t next_id_ = 0;
};

}  // namespace moebius::rank
