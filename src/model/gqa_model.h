// Decoders with grouped-query attention: Qwen 3, Mixtral, Llama and Llama 4 are this layer with
// other names and numbers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/decoder_model.h"

namespace moebius::model {

class GqaModel : public DecoderModel {
 public:
  GqaModel(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan)
      : DecoderModel(config, options, plan), layers_(config.layers.size()) {}

 protected:
  struct Layer {
    Norm attention_norm;
    GqaAttention attention;
    Norm mlp_norm;
    Mlp mlp;                      // of a dense layer
    std::optional<MoeLayer> moe;  // of a MoE layer
  };

  KvLayerSpec KvSpec() const override {
    const int64_t width = attention_.num_kv_heads * attention_.head_dim;
    return {.width_k = width, .width_v = width, .dtype = options_.act};
  }
  void ReserveAttention(Arena& arena, int64_t rows) const override {
    ReserveGqa(arena, rows, options_.act, attention_, AttentionPair().inner.columns());
  }

  const Norm& FirstNorm(int64_t layer) const override {
    return layers_[static_cast<size_t>(layer)].attention_norm;
  }
  // x += attention(norm(x)); x += mlp(norm(x)).
  void RunLayer(Step& step, int64_t layer_idx) override {
    const auto idx = static_cast<size_t>(layer_idx);
    const Layer& layer = layers_[idx];
    AddAndNorm(step, layer.attention_norm);
    RunGqa(step, attention_, rope_tables_, layer.attention, KvOf(layer_idx));
    AddAndNorm(step, layer.mlp_norm);
    if (layer.moe) {
      RunMoe(step, moe_, *layer.moe);
    } else {
      RunMlp(step, layer.mlp, step.normed, step.delta);
    }
  }

  // The norms and projections of self_attn: every family names them alike.
  void DeclareAttention(WeightPlan& plan, int64_t layer_idx) {
    const AttentionConfig& attention = config_.attention;
    const int64_t hidden = config_.hidden_size;
    const int64_t q_width = attention.num_heads * attention.head_dim;
    const int64_t kv_width = attention.num_kv_heads * attention.head_dim;
    const std::string prefix = LayerPrefix(layer_idx);
    Layer& layer = layers_[static_cast<size_t>(layer_idx)];
    layer.attention.layer = config_.layers[static_cast<size_t>(layer_idx)];
    DeclareNorm(plan, prefix + "input_layernorm.weight", hidden, config_.rms_norm_eps,
                &layer.attention_norm);
    // This rank's queries, and the KV heads that they read.
    const GroupPlace& tp = options_.shard.tp;
    const int64_t first_kv = attention.num_kv_heads * tp.rank / tp.size;
    const auto heads = [&](const char* name, int64_t width, int64_t first, int64_t count) {
      return RowsOf(WholeMatrix(prefix + name, width, hidden), first * attention.head_dim,
                    count * attention.head_dim);
    };
    plan.Stacked(Part::kAttention,
                 {heads("self_attn.q_proj.weight", q_width, tp.rank * attention_.num_heads,
                        attention_.num_heads),
                  heads("self_attn.k_proj.weight", kv_width, first_kv, attention_.num_kv_heads),
                  heads("self_attn.v_proj.weight", kv_width, first_kv, attention_.num_kv_heads)},
                 &layer.attention.qkv);
    DeclareSecond(plan, Part::kAttention,
                  WholeMatrix(prefix + "self_attn.o_proj.weight", hidden, q_width), AttentionPair(),
                  &layer.attention.heads, &layer.attention.output);
    DeclareNorm(plan, prefix + "post_attention_layernorm.weight", hidden, config_.rms_norm_eps,
                &layer.mlp_norm);
  }

  std::vector<Layer> layers_;
};

}  // namespace moebius::model
