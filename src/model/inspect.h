// What a model folder holds, without loading it: parameters and bytes by part, files, and what
// serving a token costs. Plain data for `moebius inspect`. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/load.h"
#include "model/model_config.h"
#include "model/weight_plan.h"

namespace moebius::model {

struct PartSize {
  Part part = Part::kEmbedding;
  int64_t num_tensors = 0;
  int64_t num_params = 0;  // fp8 block scales are bytes, not parameters
  uint64_t num_bytes = 0;  // in the files
};

struct FileSize {
  std::string path;
  uint64_t num_bytes = 0;
  uint64_t header_bytes = 0;  // of these
};

struct Inspection {
  ModelConfig config;
  DType activations = DType::kF32;
  std::vector<PartSize> parts;  // those that there are, in order of Part; the MTP layer last
  int64_t num_params = 0;       // of all parts
  // Per token, without the MTP layer: one row of the embedding, top_k of the routed experts, all of
  // the rest (a tied head counts, too).
  int64_t active_params = 0;

  // Of the checkpoint; none for random weights. file_bytes = header_bytes + the parts' bytes +
  // unused_bytes.
  std::vector<FileSize> files;
  uint64_t file_bytes = 0;
  uint64_t header_bytes = 0;
  int64_t num_unused_tensors = 0;  // held by the files, read by nobody (a vision tower, say)
  uint64_t unused_bytes = 0;

  uint64_t packed_bytes = 0;       // memory of the loaded weights
  int64_t kv_bytes_per_token = 0;  // all layers, the MTP layer's included
};

// Errors as those of LoadModel, which would accept what this accepts.
Result<Inspection> InspectModel(const LoadOptions& options);

}  // namespace moebius::model
