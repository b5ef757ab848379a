// How much device memory a runner's steps take: what CudaRunner allocates, and what the memory plan
// counts before. Plain functions of the model and the engine's options, any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model_runner.h"
#include "engine/step_inputs.h"
#include "model/model.h"

namespace moebius::engine {

struct RunnerSizes {
  int64_t rows = 0;        // of a step, padding included
  int64_t logit_rows = 0;  // of one piece; 0: this rank has no head
  int64_t draws = 0;       // of a step
  size_t workspace_bytes = 0;
  size_t beside_bytes = 0;  // the workspace of what runs beside; 0: nothing does
  size_t logits_bytes = 0;  // of a piece
  size_t input_bytes = 0;
  size_t partial_bytes = 0;
  size_t draw_bytes = 0;
  size_t meeting_bytes = 0;  // of one queue
  size_t arrival_bytes = 0;
  size_t Total() const {
    return workspace_bytes + beside_bytes + logits_bytes + input_bytes + partial_bytes +
           draw_bytes + (beside_bytes > 0 ? 2 : 1) * meeting_bytes + arrival_bytes;
  }
};

// Of a GPU with so many multiprocessors.
AttentionWorkers WorkersOf(const model::Model& model, const ModelRunnerOptions& options,
                           int num_sms);
RunnerSizes SizesOf(const model::Model& model, const ModelRunnerOptions& options,
                    const AttentionWorkers& workers);

}  // namespace moebius::engine
