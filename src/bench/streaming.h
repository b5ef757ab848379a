// The ceiling of decoding: the bytes that a step must read, whatever the program. Plain functions.
#pragma once

#include <cstdint>

#include "model/inspect.h"

namespace moebius::bench {

// Packed sizes of a model, in bytes.
struct ModelBytes {
  double every_step =
      0;  // weights that every token passes: attention, dense and shared MLPs, routers, norms, head
  double one_expert = 0;  // of one layer
  int64_t num_moe_layers = 0;
  int64_t num_experts = 0;  // routed, a layer
  int64_t top_k = 0;
  double kv_per_token = 0;  // of all layers
};

// Sizes as the files have them, which is how they are packed. The MTP layer does not count.
ModelBytes BytesOf(const model::Inspection& inspection);

// Routed experts that `batch` tokens reach in one layer, on average, when each takes top_k of them
// uniformly: E (1 - (1 - k / E)^batch).
double ExpectedExperts(int64_t num_experts, int64_t top_k, double batch);

// What one decode step of `batch` sequences with `context` tokens each reads.
double BytesPerStep(const ModelBytes& model, double batch, double context);

}  // namespace moebius::bench
