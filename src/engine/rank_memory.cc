#include "engine/rank_memory.h"

#include <algorithm>

#include "engine/device_runner.h"
#include "model/model_config.h"

namespace moebius::engine {

Result<KvMemoryPlan> PlanRankMemory(const model::Model& model, const EngineOptions& options,
                                    int num_threads, int num_sharers, uint64_t reserved_bytes) {
  MOEBIUS_TRY(Validate(options));
  const ModelRunnerOptions runner = RunnerOptionsOf(model, options, {});
  KvMemoryInput input;
  input.block_bytes = KvBlockBytes(model.KvLayers(), options.block_size);
  input.workspace_bytes = model.backend().on_host
                              ? StepExecutor::WorkspaceBytes(model, runner, num_threads)
                              : DeviceWorkspaceBytes(model, runner);
  input.max_position = model.config().max_position;
  MOEBIUS_ASSIGN(input.available_bytes, model.backend().memory->AvailableBytes());
  input.available_bytes -= std::min(input.available_bytes, reserved_bytes);
  input.available_bytes /= static_cast<uint64_t>(std::max(num_sharers, 1));
  return PlanKvMemory(input, options);
}

ModelRunnerOptions RunnerOptionsOf(const model::Model& model, const EngineOptions& options,
                                   const KvMemoryPlan& plan) {
  ModelRunnerOptions runner;
  runner.vocab_size = model.config().vocab_size;
  runner.block_size = options.block_size;
  runner.num_blocks = plan.num_blocks;
  runner.max_model_len = plan.max_model_len;
  runner.max_rows = options.max_num_batched_tokens;
  runner.max_samples = options.max_num_seqs;
  runner.expert_statistics = options.expert_statistics;
  runner.counts_experts = options.expert_statistics && options.on_step;
  runner.trace = options.trace;
  runner.device_graphs = options.device_graphs;
  runner.deterministic = options.deterministic;
  return runner;
}

}  // namespace moebius::engine
