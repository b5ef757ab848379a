// Llama (2 to 3.3): the plain dense decoder that the others grew from.
#include "model/families.h"
#include "model/gqa_model.h"

namespace moebius::model {
namespace {

class Llama final : public GqaModel {
 public:
  Llama(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan)
      : GqaModel(config, options, plan) {
    for (int64_t i = options_.shard.first_layer; i < options_.shard.end_layer; ++i) {
      DeclareAttention(plan, i);
      DeclareMlp(plan, Part::kDenseMlp, LayerPrefix(i) + "mlp.", DensePair(),
                 &layers_[static_cast<size_t>(i)].mlp);
    }
  }
};

}  // namespace

std::unique_ptr<DecoderModel> MakeLlama(const ModelConfig& config, const DecoderOptions& options,
                                        WeightPlan& plan) {
  return std::make_unique<Llama>(config, options, plan);
}

}  // namespace moebius::model
