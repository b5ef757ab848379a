// Runs steps of a model on this rank's device: a thread that owns the model, its KV caches, its
// workspaces and the pool of cores. The engine thread hands it plans through a queue of at most
// kMaxStepsInFlight (`steps_`); nothing else is shared but the copy of the expert counts.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/sample_inputs.h"
#include "engine/step_runner.h"
#include "kernels/backend.h"
#include "model/model.h"
#include "platform/memory.h"
#include "platform/thread_pool.h"
#include "tensor/arena.h"

namespace moebius::engine {

struct ModelRunnerOptions {
  int64_t vocab_size = 0;
  DType activations = DType::kBF16;  // of the KV caches
  int64_t block_size = 16;
  int64_t num_blocks = 0;
  int64_t max_model_len = 0;    // positions of a request
  int64_t max_rows = 0;         // of a step
  int64_t max_samples = 0;      // tokens drawn in a step; prompt tokens scored are more, in pieces
  bool measures_parts = false;  // StepOutput's parts and expert counts
  bool device_graphs = true;    // of a GPU: steps that only decode run as graphs
};

class ModelRunner : public StepRunner {
 public:
  // Memory besides the KV caches, for max_rows and max_samples.
  static uint64_t WorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options,
                                 int num_threads);

  // Allocates the caches and workspaces, binds them and starts the thread. kOutOfMemory;
  // kUnsupported where the back end lacks an operation that the model needs.
  static Result<std::unique_ptr<ModelRunner>> Create(std::unique_ptr<model::Model> model,
                                                     const kernels::Backend* backend,
                                                     std::unique_ptr<platform::ThreadPool> pool,
                                                     const ModelRunnerOptions& options);
  // Finishes the step that is running and drops the others.
  ~ModelRunner() override;

  StepHandle Launch(const StepPlan& plan) override;
  Result<StepOutput> Wait(StepHandle step, std::chrono::milliseconds timeout) override;
  moe::ExpertStats ExpertLoad() const override;

 private:
  struct Step {
    const StepPlan* plan = nullptr;
    Result<StepOutput> output;
  };

  ModelRunner(std::unique_ptr<model::Model> model, const kernels::Backend* backend,
              std::unique_ptr<platform::ThreadPool> pool, const ModelRunnerOptions& options);
  Status Allocate();
  void DeviceLoop();
  Result<StepOutput> Run(const StepPlan& plan);
  void ResolveTokens(const StepPlan& plan);
  model::ForwardBatch BatchOf(const StepPlan& plan) const;
  void SampleRows(int64_t first, Mat logits);
  void CountExperts(StepOutput* output);
  void PublishExpertLoad();
  Step& StepAt(int64_t index) { return steps_[static_cast<size_t>(index % kMaxStepsInFlight)]; }

  // The device thread's own.
  const ModelRunnerOptions options_;
  std::unique_ptr<platform::ThreadPool> pool_;
  std::unique_ptr<model::Model> model_;
  platform::Region kv_region_;
  platform::Region workspace_region_;
  platform::Region logits_region_;
  Arena workspace_;
  kernels::ExecContext context_;
  std::vector<TokenId> tokens_;
  SampleInputs sample_inputs_;
  int64_t last_step_ = -1;
  std::vector<TokenId> last_sampled_;
  double sampling_seconds_ = 0;       // of this step
  std::vector<int64_t> last_counts_;  // of experts, after the last measured step
  std::chrono::steady_clock::time_point last_published_;

  // Shared with the engine thread, under mutex_. Steps are counted from the start: those in
  // [num_waited_, num_done_) wait to be fetched, those in [num_done_, num_launched_) to be run.
  mutable std::mutex mutex_;
  std::condition_variable launched_;
  std::condition_variable done_;
  std::array<Step, kMaxStepsInFlight> steps_;
  int64_t num_launched_ = 0;
  int64_t num_done_ = 0;
  int64_t num_waited_ = 0;
  bool has_fault_ = false;   // one that nobody has waited for yet
  int64_t num_skipped_ = 0;  // steps before this one do not run: they came before a known fault
  bool is_stopping_ = false;
  bool is_load_stale_ = false;
  moe::ExpertStats expert_load_;

  std::thread thread_;
};

}  // namespace moebius::engine
