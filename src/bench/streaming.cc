#include "bench/streaming.h"

#include <cmath>

namespace moebius::bench {

double ExpectedExperts(int64_t num_experts, int64_t top_k, double batch) {
  if (num_experts == 0) return 0;
  const auto experts = static_cast<double>(num_experts);
  return experts * (1 - std::pow(1 - static_cast<double>(top_k) / experts, batch));
}

double BytesPerStep(const ModelBytes& model, double batch, double context) {
  const double experts = ExpectedExperts(model.num_experts, model.top_k, batch);
  return model.every_step + experts * model.one_expert * static_cast<double>(model.num_moe_layers) +
         batch * context * model.kv_per_token;
}

}  // namespace moebius::bench
