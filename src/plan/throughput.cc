#include "plan/throughput.h"

#include <algorithm>

namespace moebius::plan {

BestBatch TokensPerSecPerGpu(const ModelShape& model, const layout::ParallelLayout& layout,
                             const Device& device, StepInput input, double tpot_ms, int64_t most) {
  const int stages = layout.config.pipeline_parallel_size;
  StepTime step;
  const auto in_time = [&](int64_t requests) {
    input.requests_per_rank = requests;
    step = EstimateStep(model, layout, device, input);
    return DecodeTpotMs(step, input) * stages <= tpot_ms;
  };
  int64_t low = 0;
  int64_t high = 1;
  while (high <= most && in_time(high)) {
    low = high;
    high *= 2;
  }
  high = std::min(high, most + 1);
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (in_time(middle) ? low : high) = middle;
  }
  BestBatch best;
  if (low == 0) return best;
  in_time(low);
  best.requests_per_rank = low;
  best.step_us = step.total_us;
  // A turn of a stage ends one group's step; a DP rank is TP x PP GPUs.
  best.tokens_per_s_gpu = static_cast<double>(low) * std::max(1.0, input.mtp_tokens) /
                          step.total_us * 1e6 / (layout.config.tensor_parallel_size * stages);
  const auto largest =
      std::max_element(step.ops.begin(), step.ops.end(),
                       [](const OpTime& a, const OpTime& b) { return a.us < b.us; });
  best.basis = largest->basis;
  return best;
}

double ServedTokensPerSecPerGpu(double decode_tokens_per_s_gpu, double prefill_tokens_per_s_gpu,
                                double prompt_tokens, double answer_tokens) {
  return 1 /
         (1 / decode_tokens_per_s_gpu + prompt_tokens / answer_tokens / prefill_tokens_per_s_gpu);
}

}  // namespace moebius::plan
