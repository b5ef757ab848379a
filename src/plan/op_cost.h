// How long one operation of one layer takes on one GPU. Pure functions, any thread.
//
// Model time = launch + max(operations / peak, bytes / bandwidth). Where shapes of this kind were
// measured (measured.h) on the device or on the one it is `measured_as`, the model time is divided
// by the share that was reached there; else peaks are multiplied with the device's efficiencies.
#pragma once

#include <cstdint>

#include "plan/device.h"

namespace moebius::plan {

inline constexpr double kMicro = 1e6;  // microseconds of a second

struct OpCost {
  double us = 0;
  double flops = 0;
  double bytes = 0;
  int64_t count = 1;               // launches
  Basis basis = Basis::kMeasured;  // of a sum: the weakest

  OpCost& operator+=(const OpCost& other);
};

// Peak for products with weights of that size: 2 bytes bf16, 1 fp8, less fp4; what the device lacks
// runs in the next wider type.
double PeakFlops(const Device& device, double weight_bytes);
// Bytes of an activation that meets such weights: 2, 1 + scales, or the weights' own.
double ActivationBytes(const Device& device, double weight_bytes);

// out[m, n] = in[m, k] weights[n, k]; bf16 out.
OpCost Gemm(const Device& device, int64_t m, int64_t n, int64_t k, double weight_bytes);

// Anything bound by memory: `bytes` read and written by `launches` kernels.
OpCost Elementwise(const Device& device, double bytes, int64_t launches);

// What attention of one layer sees: `requests`, each with `new_tokens` queries after `cached` ones.
struct AttentionShape {
  int64_t requests = 1;
  int64_t new_tokens = 1;
  int64_t cached = 0;
  int64_t heads = 1;  // of this rank
  int64_t kv_heads = 1;
  int64_t head_dim = 128;
  int64_t v_head_dim = 128;
  int64_t kv_lora_rank = 0;  // of MLA
  int64_t rope_dim = 0;
  int64_t window = 0;  // 0: all tokens are seen
  double kv_element_bytes = 2;
};
// MLA in the latent space (absorbed): per query and cached token 2 heads (2 rank + rope)
// operations; the latent is read once.
OpCost MlaDecode(const Device& device, const AttentionShape& shape);
// The two products that lead into and out of the latent space, of `tokens` rows.
OpCost MlaAbsorb(const Device& device, const AttentionShape& shape, int64_t tokens,
                 int64_t qk_nope_head_dim);
// Causal attention on expanded keys and values (MLA's prefill, GQA's).
OpCost ContextAttention(const Device& device, const AttentionShape& shape);
OpCost GqaDecode(const Device& device, const AttentionShape& shape);

// The routed experts of one layer on the busiest rank, from grouped rows to their weighted sum.
struct ExpertsShape {
  double slots = 1;      // on the rank
  double slots_hit = 1;  // that get a row: whose weights are read
  double rows = 1;
  int64_t hidden = 1;
  int64_t width = 1;  // of an expert on this rank
  double weight_bytes = 1;
};
OpCost Experts(const Device& device, const ExpertsShape& shape);

}  // namespace moebius::plan
