// One rank's device work: a model, its KV caches and workspaces, the pool of cores; it runs one
// plan at a time. Owned and called by a rank's device thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/trace.h"
#include "engine/sample_inputs.h"
#include "engine/step_runner.h"
#include "engine/step_sync.h"
#include "kernels/backend.h"
#include "model/model.h"
#include "moe/exchange/exchange.h"
#include "platform/memory.h"
#include "platform/thread_pool.h"
#include "tensor/arena.h"

namespace moebius::engine {

struct ModelRunnerOptions {
  int64_t vocab_size = 0;
  int64_t block_size = 16;
  int64_t num_blocks = 0;
  int64_t max_model_len = 0;  // positions of a request
  int64_t max_rows = 0;       // of a step
  int64_t max_samples = 0;    // tokens drawn in a step; prompt tokens scored are more, in pieces
  bool expert_statistics = true;  // the model's expert counts
  bool counts_experts = false;    // StepOutput's
  bool device_graphs = true;      // of a GPU: steps that only decode run as graphs
  bool deterministic = false;     // of a GPU: the same bits for any batch and layout, slowly
  TraceTarget trace;
};

class StepExecutor {
 public:
  // Memory besides the KV caches, for max_rows and max_samples.
  static uint64_t WorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options,
                                 int num_threads);

  // Allocates the caches and workspaces and binds them. kOutOfMemory; kUnsupported where the back
  // end lacks an operation that the model needs.
  static Result<std::unique_ptr<StepExecutor>> Create(std::unique_ptr<model::Model> model,
                                                      const kernels::Backend* backend,
                                                      std::unique_ptr<platform::ThreadPool> pool,
                                                      const ModelRunnerOptions& options);

  // sync null: this rank is alone. Else Run comes after its Begin, which gave `shared`, and calls
  // its End; after an error the ranks cannot go on together.
  Result<StepOutput> Run(const StepPlan& plan, const SharedStep* shared = nullptr,
                         StepSync* sync = nullptr);

  moe::ExpertStats& expert_stats() { return model_->expert_stats(); }
  // The calling thread is the device thread: it goes where the pool was planned, and sees that its
  // workers are. kUnavailable: one is elsewhere.
  Status BindThread(const std::string& who) { return pool_->BindCaller(who); }

  // Called by Run when a step's layers are done: little of it is left.
  void set_after_layers(std::function<void()> after_layers) {
    after_layers_ = std::move(after_layers);
  }

  // Of the device thread. Run writes it out.
  Trace& trace() { return trace_; }
  // Of steps without a sync, which has its own.
  RankCounters& counters() { return counters_; }

 private:
  StepExecutor(std::unique_ptr<model::Model> model, const kernels::Backend* backend,
               std::unique_ptr<platform::ThreadPool> pool, const ModelRunnerOptions& options);
  Status Allocate();
  Result<StepOutput> TryRun(const StepPlan& plan, const SharedStep* shared, StepSync* sync);
  void ResolveTokens(const StepPlan& plan, bool hears_tokens);
  model::ForwardBatch BatchOf(const StepPlan& plan);
  void SampleRows(int64_t first, Mat logits);
  void MeasureExchange(StepOutput* output);
  void Finish(const StepPlan& plan, const SharedStep* shared, StepSync* sync, double seconds,
              StepOutput* output);
  void CountExperts(StepOutput* output);

  const ModelRunnerOptions options_;
  std::function<void()> after_layers_;
  Trace trace_;
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
  // After the last step.
  int64_t last_waited_ns_ = 0;
  moe::ExchangeBytes last_bytes_;
  int64_t last_expert_rows_ = 0;
  int64_t last_home_rows_ = 0;
  int64_t expert_rows_ = 0;  // of this step
  int64_t home_rows_ = 0;    // likewise
  int64_t copy_rows_ = 0;    // likewise
  RankCounters counters_;
};

}  // namespace moebius::engine
