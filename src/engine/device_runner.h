// The runner of a back end whose memory is not the host's: a GPU. In a build without CUDA its twin
// (no_cuda.cc) says so.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"
#include "engine/model_runner.h"
#include "engine/rank_load.h"
#include "engine/step_runner.h"
#include "engine/step_sync.h"
#include "model/model.h"
#include "platform/thread_pool.h"

namespace moebius::platform::cuda {
class Stream;
}

namespace moebius::engine {

// Device memory besides weights and KV caches.
uint64_t DeviceWorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options);

// Takes a model that was loaded for that back end, allocates caches and workspaces and binds them.
// Steps are queued by the thread that calls Launch; the device works them off. kOutOfMemory;
// kUnsupported where the back end lacks something.
Result<std::unique_ptr<StepRunner>> MakeDeviceRunner(std::unique_ptr<model::Model> model,
                                                     std::unique_ptr<platform::ThreadPool> pool,
                                                     const ModelRunnerOptions& options);

// What a rank of several brings along. What it points to outlives the runner.
struct DeviceRank {
  int device = 0;                                  // current for the thread that makes the runner
  const platform::cuda::Stream* stream = nullptr;  // that its collectives are queued on
  // Steps may be padded with rows: ranks need not know the others' rows but for a bound. Else they
  // agree on it (SharedStep::pads).
  bool pads = true;
  // Steps that only decode may run as graphs. Not where ranks share a GPU: making a graph may wait
  // for kernels that wait for this rank. Nor where they share a process: it may wait so with a lock
  // of the driver held, which a peer needs to queue what is waited for.
  bool graphs = true;
  // Has the logits, and somebody wants what is drawn from them.
  bool draws = true;
  // Where its steps are counted; null: nobody else reads them.
  RankCounters* counters = nullptr;
  // What the collectives have met; ends the kernels' waits where another rank has failed.
  std::function<Status()> status;
  // A follower's step is done, with what it drew: in order.
  std::function<Status(const StepPlan&, StepOutput*)> ended;
};

// The same for a rank that runs its steps together with others: a thread of the runner agrees on
// them with the peers and queues them.
Result<std::unique_ptr<StepRunner>> MakeSharedDeviceRunner(
    std::unique_ptr<model::Model> model, std::unique_ptr<platform::ThreadPool> pool,
    const ModelRunnerOptions& options, const DeviceRank& rank, std::unique_ptr<StepSync> sync);

// A rank that plans nothing. One thread, whose current device is the rank's.
class DeviceFollower {
 public:
  virtual ~DeviceFollower() = default;
  // Queues a step whose collectives' step has begun, when the one before the last is done; its
  // draws give the tokens that the leader's give. An error may be that of an earlier step.
  virtual Status Run(const StepPlan& plan, const SharedStep& shared) = 0;
  // Ends the steps that are done. True: others are still out, and it wants to be called again soon.
  virtual Result<bool> Settle() = 0;
  // All steps are done.
  virtual Status Finish() = 0;
  // What it has routed, as StepRunner has it.
  virtual moe::ExpertStats ExpertLoad() const = 0;
};
Result<std::unique_ptr<DeviceFollower>> MakeDeviceFollower(
    std::unique_ptr<model::Model> model, std::unique_ptr<platform::ThreadPool> pool,
    const ModelRunnerOptions& options, const DeviceRank& rank);

}  // namespace moebius::engine
