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
    for (int64_t i = 0; i < config_.num_layers; ++i) {
      Layer& layer = layers_[static_cast<size_t>(i)];
      const std::string prefix = LayerPrefix(i) + "feed_forward.";
      DeclareAttention(plan, i);
      layer.attention.q_norm.eps = static_cast<float>(config_.rms_norm_eps);
      layer.attention.k_norm.eps = layer.attention.q_norm.eps;
      if (!layer.attention.layer.moe) {
        DeclareMlp(plan, Part::kDenseMlp, prefix, config_.intermediate_size, &layer.mlp);
        continue;
      }
      DeclareFusedExperts(plan, prefix, &layer.moe.emplace());
      DeclareMlp(plan, Part::kSharedExperts, prefix + "shared_expert.",
                 config_.moe.shared_intermediate_size, &layer.moe->shared.emplace());
    }
  }

 private:
  // All experts in one tensor, inputs first: gate_up_proj [E, H, 2 I] and down_proj [E, I, H].
  void DeclareFusedExperts(WeightPlan& plan, const std::string& prefix, MoeLayer* layer) {
    const int64_t num_experts = config_.moe.num_experts;
    const int64_t hidden = config_.hidden_size;
    const int64_t inner = config_.moe.intermediate_size;
    if (!plan.status()) return;
    DeclareRouter(plan, prefix + "router.weight", layer);
    const auto part = [](int64_t expert, int64_t inputs, int64_t first, int64_t outputs) {
      return [=](const kernels::WeightSource& whole) {
        return whole.Rows(expert * inputs, inputs).Transposed().Rows(first, outputs);
      };
    };
    std::vector<Matrix> gates;
    std::vector<Matrix> ups;
    std::vector<Matrix> downs;
    for (int64_t e = 0; e < num_experts; ++e) {
      const std::vector<int64_t> gate_up = {num_experts, hidden, 2 * inner};
      gates.push_back({prefix + "experts.gate_up_proj", gate_up, false, part(e, hidden, 0, inner)});
      ups.push_back(
          {prefix + "experts.gate_up_proj", gate_up, false, part(e, hidden, inner, inner)});
      downs.push_back({prefix + "experts.down_proj",
                       {num_experts, inner, hidden},
                       false,
                       part(e, inner, 0, hidden)});
    }
    plan.GatedGroup(Part::kRoutedExperts, gates, ups, &layer->gate_up);
    plan.Group(Part::kRoutedExperts, downs, &layer->down);
  }
};

}  // namespace

std::unique_ptr<DecoderModel> MakeLlama4(const ModelConfig& config, const DecoderOptions& options,
                                         WeightPlan& plan) {
  return std::make_unique<Llama4>(config, options, plan);
}

}  // namespace moebius::model
