// The ceiling of decoding: the bytes that a step must read, whatever the program. Plain functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "model/inspect.h"
#include "moe/expert_stats.h"

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

// The same where `counts` says how often each expert was taken: a token takes expert e with
// probability p_e = k counts_e / sum(counts), and the experts reached are sum_e (1 - (1 -
// p_e)^batch).
double ExpectedExperts(std::span<const int64_t> counts, int64_t top_k, double batch);

// In all MoE layers together, as the engine's counts have it; a layer without counts: uniformly.
double ExpertsPerStep(const ModelBytes& model, const moe::ExpertStats& load, double batch);

// What one step of `num_rows` tokens reads, those of `kv_tokens` positions in the KV cache among
// it.
double BytesPerStep(const ModelBytes& model, const moe::ExpertStats& load, double num_rows,
                    double kv_tokens);

// Why more than the whole of the measured bandwidth seems to be used; empty: it is not.
std::string ExplainShare(double share, double bytes_per_step, double cache_bytes);

}  // namespace moebius::bench
