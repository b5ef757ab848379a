// All ranks of a deployment as processes of this machine, behind one EngineClient. Each
// data-parallel group's leader answers requests; the others follow it. Any thread may call it.
//
// A thread of its own starts the processes and watches them: one that dies is seen at once, one
// that stopped or is stuck within two seconds, a step that passed its deadline by the word that its
// ranks set. The first failure ends the deployment: every request with kError, Health with the rank
// and the cause; the processes that are left are killed after a grace. Destroying it ends requests
// as cancelled and the processes in order; none stays behind, whatever happened.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine_client.h"
#include "rank/control.h"
#include "rank/slow_ranks.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {

struct ProcessOptions {
  std::string program = "/proc/self/exe";  // whose first argument rank-process is RankProcessMain
  SilenceBounds silence{.start = std::chrono::seconds(10)};
  std::chrono::milliseconds grace = std::chrono::milliseconds(500);   // after a failure
  std::chrono::milliseconds stop_timeout = std::chrono::seconds(15);  // of an end in order
  SlowRankOptions slow;                                               // what the log names
};

class ProcessRanks final : public engine::EngineClient {
 public:
  // Returns when every rank has loaded its part. An error is that of the rank that had one first,
  // with its number; nothing is left then. options.engine.on_step hears of every leader's steps,
  // one at a time.
  static Result<std::unique_ptr<ProcessRanks>> Start(const RankOptions& options,
                                                     const ProcessOptions& process = {});
  ~ProcessRanks() override;

  const engine::EngineLimits& limits() const override;
  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override;
  void Cancel(engine::RequestId request,
              engine::FinishReason reason = engine::FinishReason::kCancelled) override;
  engine::EngineStats Stats() const override;
  moe::ExpertStats ExpertLoad() const override;
  std::vector<moe::ExpertStats> ExpertLoadByRank() const override;
  std::vector<engine::RankLoad> RankLoads() const override;
  moe::PlacementState Placement() const override;
  Status Health() const override;

  // By rank: process, state, last step, error.
  std::vector<RankReport> Reports() const;

 private:
  class Impl;
  explicit ProcessRanks(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moebius::rank
