// A model as the planner sees it: parameters and bytes by part, from a Hugging Face configuration
// alone (no weight is read), and configurations that are known by their hub names. Plain values and
// pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "layout/parallel_layout.h"

namespace moebius::plan {

// All sizes are parameters unless named bytes. Multi-token-prediction layers are not counted.
struct ModelShape {
  layout::ModelNumbers numbers;
  std::string name;
  // For command lines: the hub name or the folder it was read from, and what was merged into it.
  std::string served;
  std::string hf_overrides;
  int64_t num_moe_layers = 0;
  int64_t num_dense_layers = 0;
  std::vector<bool> moe_layers;  // by layer, num_layers of them
  bool tie_embeddings = false;   // the head is the embedding

  // Attention. MLA: q_lora_rank (0: none), kv_lora_rank, and the three head widths; GQA: head_dim,
  // and with v_head_dim == head_dim.
  int64_t q_lora_rank = 0;
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  // Layers that see only a window or chunk hold and read at most that many tokens of a request.
  std::vector<bool> windowed_layers;  // by layer
  int64_t num_windowed_layers = 0;
  int64_t window = 0;

  double weight_bytes = 2;         // of a parameter of attention, FFN and experts, scales included
  double expert_weight_bytes = 2;  // of routed experts where they differ (mxfp4: 0.53)
  double other_bytes = 2;          // embedding, head, router, norms

  // Parameters.
  int64_t AttentionParams() const;        // of one layer, all of it
  int64_t AttentionCopiedParams() const;  // of one layer: what TP cannot cut (MLA's q_a and kv_a)
  int64_t KvProjectionParams() const;     // of one layer, GQA's K and V: copied where TP > KV heads
  int64_t ExpertParams() const;           // of one routed expert of one layer
  int64_t SharedParams() const;           // of the shared experts of one layer
  int64_t DenseFfnParams() const;         // of one dense layer
  int64_t RouterParams() const;           // of one MoE layer
  int64_t EmbeddingParams() const;        // embedding or head (one of them)
  int64_t TotalParams() const;
  int64_t ActiveParams() const;  // what one token multiplies with: the head, not the embedding

  // Bytes of cached keys and values of one token in one layer of one rank under `tp` (MLA is
  // copied, GQA goes by heads).
  double KvBytesPerTokenLayer(int tp, double kv_element_bytes) const;
};

// A folder, a config.json, or a hub name of KnownModels() (whole or without its owner, in any
// case). `hf_overrides`, unless empty, is a JSON object merged into the configuration first. What
// our own loader serves is read by it, so that the two agree; other families are read for their
// numbers alone. Errors name what was tried, and the nearest known name.
Result<ModelShape> LoadModelShape(const std::string& model, const std::string& hf_overrides = "");
std::vector<std::string> KnownModels();

// The config.json of a name that LoadModelShape knows, enough to make random weights of its shape.
// kNotFound has the nearest known name.
Result<std::string> KnownConfig(const std::string& model);

}  // namespace moebius::plan
