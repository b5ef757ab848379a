// Runs steps on one GPU. Launch (the engine thread's) writes a step's inputs into pinned memory,
// queues their copy, the forward pass, the draws and the copy of what was drawn on one stream (with
// one beside it that the forward pass may use), and returns: nothing in a step waits for the host.
// Tokens that the step before drew are put in place on the device. Steps in which every sequence
// has one row run as CUDA graphs, one a bucket of rows and block-table length, made when a bucket
// comes for the second time. Where draws have no lists the graph holds all of the step, with the
// copies in and out.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/cuda/device_queue.h"
#include "engine/cuda/runner_sizes.h"
#include "engine/cuda/step_blocks.h"
#include "engine/cuda/step_draws.h"
#include "engine/cuda/step_graphs.h"
#include "engine/device_runner.h"
#include "engine/step_inputs.h"
#include "moe/exchange/mode.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/stream.h"

namespace moebius::engine {

class CudaRunner final : public StepRunner {
 public:
  CudaRunner(std::unique_ptr<model::Model> model, std::unique_ptr<platform::ThreadPool> pool,
             const ModelRunnerOptions& options, DeviceRank rank = {});
  ~CudaRunner() override;
  Status Allocate();

  StepHandle Launch(const StepPlan& plan) override;
  // A step of several ranks, whose collectives' step has begun. shared null: of this rank alone.
  StepHandle Launch(const StepPlan& plan, const SharedStep* shared);
  // Whether Wait for the oldest step that is out would return at once.
  bool IsNextDone();
  // What the collectives with other ranks have met so far.
  Status PeersStatus() const;
  Result<StepOutput> Wait(StepHandle step, std::chrono::milliseconds timeout) override;
  int64_t NextStep() const override { return num_launched_; }
  moe::ExpertStats ExpertLoad() const override;
  RankLoad Load() const override { return counters_.Read(); }

 private:
  struct Slot {
    const StepPlan* plan = nullptr;
    int64_t step = -1;             // of all ranks
    std::vector<int64_t> dp_rows;  // that they brought
    int64_t epoch = 0;             // of the placement
    moe::ExchangeMode mode = moe::ExchangeMode::kAuto;
    Status queued;
    platform::cuda::PinnedMemory drawn;
    platform::cuda::PinnedMemory counts;
    platform::cuda::Event begin;
    platform::cuda::Event end;
  };
  // Where the host's seconds go while it queues a step.
  struct QueueTimes {
    double staging = 0;
    double inputs = 0;
    double graph = 0;
    double outputs = 0;
    void Add(const QueueTimes& other) {
      staging += other.staging;
      inputs += other.inputs;
      graph += other.graph;
      outputs += other.outputs;
    }
  };

  const platform::cuda::Stream& stream() const {
    return rank_.stream != nullptr ? *rank_.stream : own_stream_;
  }
  void SetShared(const SharedStep* shared);
  Status AllocateQueues(int num_sms);
  Status AllocateKv();
  Status Queue(const StepPlan& plan, Slot& slot, QueueTimes& times);
  Status Forward(const StagedPlan& staged, const StepInputs& device, bool samples_inside);
  // Of the pass that was queued last.
  moe::ExchangeMode ModeOfPass() const;
  void Count(const Slot& slot, double seconds);
  Result<StepOutput> Read(const Slot& slot);
  Slot& SlotAt(int64_t index) { return slots_[static_cast<size_t>(index % kMaxStepsInFlight)]; }

  const ModelRunnerOptions options_;
  const DeviceRank rank_;
  std::unique_ptr<platform::ThreadPool> pool_;
  AttentionWorkers workers_;
  RunnerSizes sizes_;
  platform::cuda::Stream own_stream_;
  platform::cuda::Stream beside_stream_;
  DeviceQueue queue_;
  DeviceQueue beside_;
  platform::cuda::DeviceMemory kv_;
  platform::cuda::DeviceMemory logits_;
  platform::cuda::DeviceMemory partials_;
  platform::cuda::DeviceMemory arrivals_;
  StepBlocks blocks_;
  StepDraws draws_;
  std::unique_ptr<model::Model> model_;
  std::array<Slot, kMaxStepsInFlight> slots_;
  StepGraphs graphs_;
  // Of the step that is queued.
  std::vector<int64_t> peer_rows_;  // by data-parallel rank
  bool pads_ = true;
  int64_t moe_chunks_ = 0;
  int64_t num_launched_ = 0;
  int64_t num_waited_ = 0;
  int64_t num_skipped_ = 0;  // steps before this one came before a known fault
  int64_t last_step_ = -1;
  std::vector<int64_t> last_counts_;
  QueueTimes replay_times_;  // of all steps that ran as a graph
  RankCounters own_counters_;
  RankCounters& counters_;
  mutable std::mutex stats_mutex_;  // the model's counts, which any thread may ask for
};

}  // namespace moebius::engine
