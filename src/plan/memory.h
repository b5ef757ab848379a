// What one GPU holds, by part, and what it sends: the byte formulas of the playbook with true sizes.
// Pure, any thread.
#pragma once

#include <cstdint>

#include "layout/parallel_layout.h"
#include "plan/model_shape.h"

namespace moebius::plan {

struct MemoryInput {
  double hbm_bytes = 0;
  double utilization = 0.9;
  double kv_element_bytes = 2;
  int64_t max_batched_tokens = 8192;  // of a step of one rank, prefill
  int64_t max_decode_tokens = 512;    // of a decode step of one rank: sizes the exchange's buffers
};

// Bytes on the fullest GPU.
struct MemoryUse {
  double attention = 0;
  double dense_ffn = 0;
  double routed_experts = 0;   // without redundant slots
  double redundant_slots = 0;  // and their staging slot
  double shared_experts = 0;
  double embedding_and_head = 0;
  double router_and_norms = 0;
  double exchange_buffers = 0;
  double activations = 0;  // workspace, graphs, runtime
  double weights() const;
  double total_without_kv() const;

  double kv_budget = 0;              // what utilization leaves; negative: does not fit
  double kv_bytes_per_token = 0;     // on this GPU, all its layers
  int64_t kv_tokens_per_rank = 0;    // that one DP rank can hold
  int64_t distinct_kv_tokens = 0;    // of the deployment: the figure to maximise
  int kv_copies = 1;                 // of one token's KV inside a TP group (MLA: TP)
  bool fits() const { return kv_tokens_per_rank > 0; }
};
MemoryUse PlanMemory(const ModelShape& model, const layout::ParallelLayout& layout,
                     const MemoryInput& input);

// Bytes that one GPU sends in one MoE layer and in its attention, for T tokens of its rank.
struct Traffic {
  double attention_all_reduce = 0;
  double moe_dispatch = 0;   // all-to-all's copies, or the gather's
  double moe_combine = 0;
  double moe_all_reduce = 0; // TP+EP and TP
  double token_gather = 0;   // after token cutting
  double pipeline = 0;       // a stage boundary, per token group
  double remote_copies = 0;  // of a token, to distinct remote ranks (all-to-all)
  double per_layer() const;
};
Traffic PlanTraffic(const ModelShape& model, const layout::ParallelLayout& layout,
                    int64_t tokens_per_rank, double dispatch_element_bytes);

// Expected number of distinct remote ranks that a token of top-k uniform experts visits:
// EP (1 - C(E - E/EP, k) / C(E, k)) (EP - 1) / EP.
double RemoteCopies(int64_t num_experts, int64_t top_k, int expert_parallel_size);

}  // namespace moebius::plan
