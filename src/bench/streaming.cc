#include "bench/streaming.h"

#include <cmath>

namespace moebius::bench {

ModelBytes BytesOf(const model::Inspection& inspection) {
  const model::ModelConfig& config = inspection.config;
  ModelBytes bytes;
  bytes.num_moe_layers = config.num_moe_layers();
  bytes.num_experts = config.moe.num_experts;
  bytes.top_k = config.moe.top_k;
  bytes.kv_per_token = static_cast<double>(inspection.kv_bytes_per_token) *
                       static_cast<double>(config.num_layers) /
                       static_cast<double>(config.num_layers + config.num_mtp_layers);
  for (const model::PartSize& part : inspection.parts) {
    const auto size = static_cast<double>(part.num_bytes);
    switch (part.part) {
      case model::Part::kRoutedExperts:
        bytes.one_expert = size / static_cast<double>(bytes.num_moe_layers * bytes.num_experts);
        break;
      case model::Part::kEmbedding:
        // One row of it is read, unless it is the head too.
        if (config.tie_embeddings) bytes.every_step += size;
        break;
      case model::Part::kMtp:
        break;
      default:
        bytes.every_step += size;
    }
  }
  return bytes;
}

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
