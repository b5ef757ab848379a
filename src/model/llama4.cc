// Llama 4 (text). Most layers rotate (interleaved), norm queries and keys after it without weights,
// and see only their chunk of positions; every fourth does none of it and sees everything, with
// queries whose temperature grows with position. The router's top choice scales the expert's input
// by the sigmoid of its logit; a shared expert runs beside.
#include "model/families.h"
#include "model/gqa_model.h"

namespace moebius::model {
namespace {

class Llama4 final : public GqaModel {
 public:
  Llama4(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan)
      : GqaModel(config, options, plan) {
    for (int64_t i = options_.shard.first_layer; i < options_.shard.end_layer; ++i) {
      Layer& layer = layers_[static_cast<size_t>(i)];
      const std::string prefix = LayerPrefix(i) + "feed_forward.";
      DeclareAttention(plan, i);
      layer.attention.q_norm.eps = static_cast<float>(config_.rms_norm_eps);
      layer.attention.k_norm.eps = layer.attention.q_norm.eps;
      if (!layer.attention.layer.moe) {
        DeclareMlp(plan, Part::kDenseMlp, prefix, DensePair(), &layer.mlp);
        continue;
      }
      DeclareFusedExperts(plan, prefix, &layer.moe.emplace());
      DeclareSharedExpert(plan, prefix + "shared_expert.", &*layer.moe);
    }
  }

 private:
  // All experts in one tensor, inputs first: gate_up_proj [E, H, 2 I] and down_proj [E, I, H].
  void DeclareFusedExperts(WeightPlan& plan, const std::string& prefix, MoeLayer* layer) {
    const int64_t num_experts = config_.moe.num_experts;
    const int64_t hidden = config_.hidden_size;
    const int64_t inner = config_.moe.intermediate_size;
    const auto part = [](std::string name, std::vector<int64_t> shape, int64_t expert,
                         int64_t first, int64_t outputs) {
      const int64_t inputs = shape[1];
      const auto select = [=](const kernels::WeightSource& whole) {
        return whole.Rows(expert * inputs, inputs).Transposed().Rows(first, outputs);
      };
      return Matrix{std::move(name), std::move(shape), false, select};
    };
    const auto matrices_of = [=](int64_t e) -> ExpertMatrices {
      const std::string gate_up = prefix + "experts.gate_up_proj";
      const std::vector<int64_t> shape = {num_experts, hidden, 2 * inner};
      return {part(gate_up, shape, e, 0, inner), part(gate_up, shape, e, inner, inner),
              part(prefix + "experts.down_proj", {num_experts, inner, hidden}, e, 0, hidden)};
    };
    DeclareExpertMatrices(plan, prefix + "router.weight", matrices_of, layer);
  }
};

}  // namespace

std::unique_ptr<DecoderModel> MakeLlama4(const ModelConfig& config, const DecoderOptions& options,
                                         WeightPlan& plan) {
  return std::make_unique<Llama4>(config, options, plan);
}

}  // namespace moebius::model
