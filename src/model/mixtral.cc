// Mixtral: every layer has experts, named w1 (gate), w3 (up) and w2 (down); softmax, the chosen
// weights normalised. Older files attend within a sliding window.
#include "model/families.h"
#include "model/gqa_model.h"

namespace moebius::model {
namespace {

class Mixtral final : public GqaModel {
 public:
  Mixtral(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan)
      : GqaModel(config, options, plan) {
    for (int64_t i = options_.shard.first_layer; i < options_.shard.end_layer; ++i) {
      DeclareAttention(plan, i);
      DeclareExperts(plan, LayerPrefix(i) + "block_sparse_moe.",
                     {.gate = "w1", .up = "w3", .down = "w2"},
                     &layers_[static_cast<size_t>(i)].moe.emplace());
    }
  }
};

}  // namespace

std::unique_ptr<DecoderModel> MakeMixtral(const ModelConfig& config, const DecoderOptions& options,
                                          WeightPlan& plan) {
  return std::make_unique<Mixtral>(config, options, plan);
}

}  // namespace moebius::model
