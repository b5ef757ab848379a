// What a rank's runner gets for a model and a user's options: rows, draws, KV blocks. Pure but for
// a look at the memory that is available.
#pragma once

#include "base/result.h"
#include "engine/engine_options.h"
#include "engine/kv_memory.h"
#include "engine/step_executor.h"
#include "model/model.h"

namespace moebius::engine {

// Of a loaded model. num_sharers: ranks that take what is available together; reserved_bytes: what
// is taken besides, of all of them, and may not have been touched yet. Errors are those of
// PlanKvMemory.
Result<KvMemoryPlan> PlanRankMemory(const model::Model& model, const EngineOptions& options,
                                    int num_threads, int num_sharers = 1,
                                    uint64_t reserved_bytes = 0);

ModelRunnerOptions RunnerOptionsOf(const model::Model& model, const EngineOptions& options,
                                   const KvMemoryPlan& plan);

}  // namespace moebius::engine
