#include "bench/streaming.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

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

double ExpectedExperts(std::span<const int64_t> counts, int64_t top_k, double batch) {
  const auto sum = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  double reached = 0;
  for (const int64_t count : counts) {
    const double share = static_cast<double>(top_k) * static_cast<double>(count) / sum;
    reached += 1 - std::pow(1 - std::min(share, 1.0), batch);
  }
  return reached;
}

double ExpertsPerStep(const ModelBytes& model, const moe::ExpertStats& load, double batch) {
  double experts = 0;
  for (int64_t i = 0; i < model.num_moe_layers; ++i) {
    const auto layer = static_cast<int>(i);
    const auto counts = layer < load.num_layers() ? load.Layer(layer) : std::span<const int64_t>();
    const bool is_counted =
        std::any_of(counts.begin(), counts.end(), [](int64_t count) { return count > 0; });
    experts += is_counted ? ExpectedExperts(counts, model.top_k, batch)
                          : ExpectedExperts(model.num_experts, model.top_k, batch);
  }
  return experts;
}

double BytesPerStep(const ModelBytes& model, const moe::ExpertStats& load, double num_rows,
                    double kv_tokens) {
  return model.every_step + ExpertsPerStep(model, load, num_rows) * model.one_expert +
         kv_tokens * model.kv_per_token;
}

std::string ExplainShare(double share, double bytes_per_step, double cache_bytes) {
  if (share <= 1) return "";
  if (bytes_per_step <= cache_bytes) {
    return fmt::format("a step fits the caches ({:.1f} MB), which are faster than memory",
                       cache_bytes / 1e6);
  }
  return "bandwidth was disturbed: measured again, and still less than the model reached";
}

}  // namespace moebius::bench
