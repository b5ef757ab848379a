// How many requests a GPU can serve at a time per token, and what that yields. Pure, any thread.
#pragma once

#include <cstdint>

#include "plan/step_time.h"

namespace moebius::plan {

struct BestBatch {
  int64_t requests_per_rank = 0;  // 0: even one request takes longer
  double step_us = 0;
  double tokens_per_s_gpu = 0;
  Basis basis = Basis::kRoofline;  // of the largest operation
};
// The largest batch of a DP rank (of one pipeline stage's turn; up to `most`) whose PP turns stay
// within tpot_ms per output token. `input` gives everything but the requests. Memory is not looked
// at.
BestBatch TokensPerSecPerGpu(const ModelShape& model, const layout::ParallelLayout& layout,
                             const Device& device, StepInput input, double tpot_ms,
                             int64_t most = 4096);

// Output tokens a second per GPU where the same GPUs, or others of the same kind in the matching
// number, also read `prompt_tokens` for every `answer_tokens`: decode and prefill times add up.
double ServedTokensPerSecPerGpu(double decode_tokens_per_s_gpu, double prefill_tokens_per_s_gpu,
                                double prompt_tokens, double answer_tokens);

}  // namespace moebius::plan
