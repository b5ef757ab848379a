// How many KV blocks a rank gets and so how long its requests may be: a pure function of figures.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_options.h"
#include "model/model.h"

namespace moebius::engine {

// A request's length where max_model_len is not given: models that promise millions of positions
// would pay for them (rotation tables, block tables) without anyone having asked.
constexpr int64_t kMostUnaskedModelLen = 262144;

struct KvMemoryInput {
  uint64_t block_bytes = 0;      // of one KV block in all layers
  uint64_t workspace_bytes = 0;  // activations, logits: allocated besides
  uint64_t available_bytes = 0;  // what the machine still has, weights loaded
  int64_t max_position = 0;      // of the model
};

struct KvMemoryPlan {
  int64_t num_blocks = 0;
  int64_t max_model_len = 0;
  uint64_t kv_bytes = 0;
  uint64_t workspace_bytes = 0;

  std::string Describe(int64_t block_size) const;  // one line
};

// Bytes of `block_size` tokens of KV in all layers.
uint64_t KvBlockBytes(std::span<const model::KvLayerSpec> layers, int64_t block_size);

// Where the caches of all layers lie in one piece of memory, a CPU's or a GPU's: layer after layer,
// k before v, each from a multiple of 256 bytes on. `memory` holds KvCacheBytes and begins at such
// a multiple; num_rows: tokens.
size_t KvCacheBytes(std::span<const model::KvLayerSpec> layers, int64_t num_rows);
std::vector<model::Model::KvLayer> LayOutKv(std::byte* memory,
                                            std::span<const model::KvLayerSpec> layers,
                                            int64_t num_rows);

// kInvalidArgument: max_model_len exceeds the model's. kOutOfMemory: it does not fit; the message
// has the figures and says what to change.
Result<KvMemoryPlan> PlanKvMemory(const KvMemoryInput& input, const EngineOptions& options);

}  // namespace moebius::engine
