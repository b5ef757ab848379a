// What one GPU holds, by part, and what it sends: the byte formulas of the playbook with true
// sizes. Pure, any thread.
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
  int64_t context = 0;  // tokens of a usual request: windowed layers keep only their window of it;
                        // 0: as if they kept all
  // What every rank takes whatever it runs: runtime, kernels and graphs, and for each communicator
  // (what AIConfigurator assumes of a GPU).
  double runtime_bytes = 3.5e9;
  double communicator_bytes = 0.4e9;
  // Of own ranks (ParallelConfig::own_ranks), which take the engine's own sizes instead of these
  // two; max_decode_tokens are then the requests of a step.
  double activation_bytes = 0;  // of an element of a row; 0: 4 with weights of 4 bytes, else 2
  // Of a rank in one chunk of a MoE layer; 0: the engine's own choice. On CPUs: plans for GPUs have
  // a budget of bytes (workspace.cc).
  int64_t max_moe_rows = 0;
  bool deterministic = false;  // results come home un-summed
  int num_threads = 1;         // that compute
  // Of a rank, where experts that move arrive; of own_slots, too.
  int num_staging_slots = 0;
};

// What dispatch and combine keep on one rank, by the backend's own rule.
//  ours: regions [source rank][chunk tokens] for rows out (dispatch dtype, metadata) and home
//  (bf16),
//    two sets under two-batch overlap, and rows grouped by slot at their worst, R x tokens x
//    min(k, slots) of input, first and second product; a step is cut into chunks so that these stay
//    within kGroupedBudget, but a decode step is one chunk.
//  deepep_low_latency: 4 x slots of all ranks x tokens x (2 H + H / 32) bytes: send and receive,
//  each
//    twice, for the largest decode step (also taken for nixl_ep).
//  deepep_high_throughput and other kernels: a fixed 1 GiB for the node's links and 1 GiB for the
//  network. gather and scatter: the tokens of all ranks, in and out.
//  own ranks: the regions and the communicators that the engine shares out (own_ranks.h).
struct ExchangeMemory {
  double regions = 0;
  double grouped = 0;
  int64_t chunk_tokens = 0;  // of one rank
  int64_t chunks = 0;        // of a step of max_batched_tokens
  double bytes() const { return regions + grouped; }
};
constexpr double kGroupedBudget = 4.0 * (int64_t{1} << 30);
ExchangeMemory PlanExchangeMemory(const ModelShape& model, const layout::ParallelLayout& layout,
                                  const MemoryInput& input);
double LowLatencyBufferBytes(int64_t num_slots, int64_t max_tokens, int64_t hidden_size);

// Bytes on the fullest GPU: a rank of the pipeline stage that leaves KV the fewest tokens.
struct MemoryUse {
  double attention = 0;
  double dense_ffn = 0;
  double routed_experts = 0;  // without redundant slots
  // And what EPLB keeps: own staging slots; else one layer's slots to stage, and the load window.
  double redundant_slots = 0;
  double shared_experts = 0;
  double embedding_and_head = 0;
  double router_and_norms = 0;
  double exchange_buffers = 0;
  double activations = 0;  // workspace, graphs, runtime
  double weights() const;
  double total_without_kv() const;

  double kv_budget = 0;            // what utilization leaves; negative: does not fit
  double kv_bytes_per_token = 0;   // on this GPU, all its layers
  int64_t kv_tokens_per_rank = 0;  // that one DP rank can hold
  int64_t distinct_kv_tokens = 0;  // of the deployment: the figure to maximise
  int kv_copies = 1;               // of one token's KV inside a TP group (MLA: TP)
  bool fits() const { return kv_tokens_per_rank > 0; }
};
MemoryUse PlanMemory(const ModelShape& model, const layout::ParallelLayout& layout,
                     const MemoryInput& input);

// Bytes that one GPU sends in one MoE layer and in its attention, for T tokens of its rank.
struct Traffic {
  double attention_all_reduce = 0;
  double moe_dispatch = 0;  // all-to-all's copies, or the gather's
  double moe_combine = 0;
  double moe_all_reduce = 0;  // TP+EP and TP; of a dense model's FFN, too
  double token_gather = 0;    // after token cutting
  double pipeline = 0;        // a stage boundary, per token group
  double remote_copies = 0;   // of a token, to distinct remote ranks (all-to-all)
  double per_layer() const;
};
Traffic PlanTraffic(const ModelShape& model, const layout::ParallelLayout& layout,
                    int64_t tokens_per_rank, double dispatch_element_bytes);

// Expected number of distinct remote ranks that a token of top-k uniform experts visits:
// EP (1 - C(E - E/EP, k) / C(E, k)) (EP - 1) / EP.
double RemoteCopies(int64_t num_experts, int64_t top_k, int expert_parallel_size);

}  // namespace moebius::plan
