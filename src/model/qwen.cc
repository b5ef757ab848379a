// Qwen 3 and Qwen 3 MoE: queries and keys are normed per head before the rotation; some layers may
// be dense (mlp_only_layers, decoder_sparse_step). Softmax over all experts, the chosen weights
// normalised if the file says so.
#include "model/families.h"
#include "model/gqa_model.h"

namespace moebius::model {
namespace {

class Qwen final : public GqaModel {
 public:
  Qwen(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan)
      : GqaModel(config, options, plan) {
    for (int64_t i = options_.shard.first_layer; i < options_.shard.end_layer; ++i) {
      Layer& layer = layers_[static_cast<size_t>(i)];
      const std::string prefix = LayerPrefix(i);
      DeclareAttention(plan, i);
      DeclareNorm(plan, prefix + "self_attn.q_norm.weight", config_.attention.head_dim,
                  config_.rms_norm_eps, &layer.attention.q_norm);
      DeclareNorm(plan, prefix + "self_attn.k_norm.weight", config_.attention.head_dim,
                  config_.rms_norm_eps, &layer.attention.k_norm);
      if (layer.attention.layer.moe) {
        DeclareExperts(plan, prefix + "mlp.", {}, &layer.moe.emplace());
      } else {
        DeclareMlp(plan, Part::kDenseMlp, prefix + "mlp.", DensePair(), &layer.mlp);
      }
    }
  }
};

}  // namespace

std::unique_ptr<DecoderModel> MakeQwen(const ModelConfig& config, const DecoderOptions& options,
                                       WeightPlan& plan) {
  return std::make_unique<Qwen>(config, options, plan);
}

}  // namespace moebius::model
