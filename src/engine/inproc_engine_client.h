// An engine in this process: one rank, its engine thread and its device thread. No sockets, no
// configuration. Any thread may call it; destroying it finishes every request as cancelled and
// joins the threads.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/device_runner.h"
#include "engine/engine_client.h"
#include "engine/engine_options.h"
#include "engine/rank_memory.h"
#include "engine/step_sync.h"
#include "kernels/backend.h"
#include "model/model.h"
#include "platform/thread_pool.h"

namespace moebius::engine {

class InprocEngineClient : public EngineClient {
 public:
  // Takes the loaded model and the pool that its operations run on, allocates the KV caches and
  // workspaces, and starts the threads. kInvalidArgument: an option, named. kOutOfMemory: the
  // memory plan does not fit; the message has the figures and what to change.
  static Result<std::unique_ptr<InprocEngineClient>> Create(
      std::unique_ptr<model::Model> model, const kernels::Backend* backend,
      std::unique_ptr<platform::ThreadPool> pool, const EngineOptions& options);
  // A rank of several, with the memory that they agreed on; sync: what it settles with the others;
  // rank: what it has on a GPU.
  static Result<std::unique_ptr<InprocEngineClient>> Create(
      std::unique_ptr<model::Model> model, const kernels::Backend* backend,
      std::unique_ptr<platform::ThreadPool> pool, const EngineOptions& options,
      const KvMemoryPlan& plan, std::unique_ptr<StepSync> sync, const DeviceRank& rank = {});
  ~InprocEngineClient() override;

  const EngineLimits& limits() const override;
  Result<RequestId> Submit(RequestInput input, TokenSink sink) override;
  void Cancel(RequestId request, FinishReason reason = FinishReason::kCancelled) override;
  EngineStats Stats() const override;
  moe::ExpertStats ExpertLoad() const override;
  std::vector<RankLoad> RankLoads() const override;
  Status Health() const override;

 private:
  class Impl;
  explicit InprocEngineClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moebius::engine
