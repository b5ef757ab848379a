#include "model/config_families.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moebius::model {
namespace {

constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 14;
constexpr int64_t kMaxIntermediate = 1 << 22;
constexpr int64_t kMaxExperts = 1 << 14;

// Grouped-query attention; head_dim 0 or absent: hidden_size / heads.
void ReadGqa(FieldReader& fields, int64_t default_head_dim, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  attention.kind = AttentionKind::kGqa;
  attention.num_heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  attention.num_kv_heads = fields.IntOr("num_key_value_heads", attention.num_heads, 1, kMaxHeads);
  const int64_t head_dim =
      default_head_dim > 0 ? default_head_dim : config.hidden_size / attention.num_heads;
  attention.head_dim = fields.IntOr("head_dim", head_dim, 1, kMaxHeadDim);
  fields.Expect(attention.num_heads % attention.num_kv_heads == 0, "num_key_value_heads",
                fmt::format("a divisor of num_attention_heads ({})", attention.num_heads));
  fields.Expect(attention.head_dim % 2 == 0 && attention.head_dim > 0, "head_dim",
                "an even number (hidden_size / num_attention_heads where absent)");
}

// The count of routed experts, however it is spelled, and top_k (default 0: it must be there).
void ReadExperts(FieldReader& fields, std::initializer_list<const char*> spellings,
                 int64_t default_top_k, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.num_experts = fields.Int(fields.Spelling(spellings), 1, kMaxExperts);
  moe.top_k = fields.IntOr("num_experts_per_tok", default_top_k, 1, moe.num_experts);
  fields.Expect(moe.top_k >= 1 && moe.top_k <= moe.num_experts, "num_experts_per_tok",
                fmt::format("a whole number from 1 to {}", moe.num_experts));
}

void ReadGroups(FieldReader& fields, int64_t num_groups, int64_t num_top_groups,
                ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.num_groups = fields.IntOr("n_group", num_groups, 1, moe.num_experts);
  moe.num_top_groups =
      fields.IntOr("topk_group", std::min(num_top_groups, moe.num_groups), 1, moe.num_groups);
  fields.Expect(moe.num_experts % moe.num_groups == 0, "n_group",
                fmt::format("a divisor of the {} routed experts", moe.num_experts));
  fields.Expect(moe.top_k * moe.num_groups <= moe.num_experts * moe.num_top_groups, "topk_group",
                fmt::format("groups enough for num_experts_per_tok = {}", moe.top_k));
}

void ReadMla(FieldReader& fields, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  attention.kind = AttentionKind::kMla;
  attention.num_heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  attention.num_kv_heads = 1;
  attention.q_lora_rank = fields.IntOr("q_lora_rank", 0, 1, config.hidden_size * 8);
  attention.kv_lora_rank = fields.Int("kv_lora_rank", 1, kMaxHeadDim);
  attention.qk_nope_head_dim = fields.Int("qk_nope_head_dim", 1, kMaxHeadDim);
  attention.qk_rope_head_dim = fields.Int("qk_rope_head_dim", 2, kMaxHeadDim);
  attention.v_head_dim = fields.Int("v_head_dim", 1, kMaxHeadDim);
  fields.Expect(attention.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", "an even number");
}

// deepseek_v2 and deepseek_v3 differ in gating; Kimi K2 is the latter with other numbers.
void ReadDeepseek(FieldReader& fields, ModelConfig& config) {
  const bool v2 = config.model_type == "deepseek_v2";
  ReadMla(fields, config);
  // transformers rotates V2 interleaved whatever the file says.
  config.attention.rope_interleaved = v2 || fields.BoolOr("rope_interleave", true);
  config.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
  ReadExperts(fields, {"n_routed_experts", "num_local_experts", "num_experts"}, 0, config);

  MoeConfig& moe = config.moe;
  moe.intermediate_size = fields.Int("moe_intermediate_size", 1, kMaxIntermediate);
  moe.shared_intermediate_size =
      moe.intermediate_size * fields.IntOr("n_shared_experts", 0, 0, kMaxExperts);
  const std::string method = fields.StringOr("topk_method", v2 ? "greedy" : "noaux_tc");
  if (v2) {
    fields.Expect(method == "greedy" || method == "group_limited_greedy", "topk_method",
                  "\"greedy\" or \"group_limited_greedy\" for deepseek_v2");
    fields.Expect(fields.StringOr("scoring_func", "softmax") == "softmax", "scoring_func",
                  "\"softmax\" for deepseek_v2");
    moe.router = RouterKind::kSoftmax;
    // transformers leaves V2's weights un-normalised whatever norm_topk_prob says, and so do we:
    // no published checkpoint sets it.
    moe.scale = fields.NumberOr("routed_scaling_factor", 1.0, -1e6, 1e6);
    if (method == "group_limited_greedy") ReadGroups(fields, 1, 1, config);
  } else {
    fields.Expect(method == "noaux_tc", "topk_method", "\"noaux_tc\" for deepseek_v3");
    fields.Expect(fields.StringOr("scoring_func", "sigmoid") == "sigmoid", "scoring_func",
                  "\"sigmoid\" for deepseek_v3");
    moe.router = RouterKind::kSigmoidBias;
    moe.normalize = fields.BoolOr("norm_topk_prob", true);
    moe.scale = fields.NumberOr("routed_scaling_factor", 2.5, -1e6, 1e6);
    ReadGroups(fields, 8, 4, config);
  }

  const int64_t num_dense = fields.IntOr("first_k_dense_replace", v2 ? 0 : 3, 0, 1 << 20);
  const int64_t frequency = fields.IntOr("moe_layer_freq", 1, 1, 1 << 20);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    config.layers[static_cast<size_t>(i)].moe = i >= num_dense && i % frequency == 0;
  }
  config.num_mtp_layers =
      fields.IntOr(fields.Spelling({"num_nextn_predict_layers", "num_mtp_layers"}), 0, 0, 1);
}

void ReadQwen(FieldReader& fields, ModelConfig& config) {
  const bool has_experts = config.model_type == "qwen3_moe";
  ReadGqa(fields, has_experts ? 0 : 128, config);
  config.attention.qk_norm = QkNorm::kRms;
  config.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
  const int64_t window = fields.BoolOr("use_sliding_window", false)
                             ? fields.IntOr("sliding_window", 4096, 1, int64_t{1} << 40)
                             : 0;
  if (has_experts) {
    ReadExperts(fields, {"num_experts", "num_local_experts"}, 8, config);
    config.moe.intermediate_size = fields.Int("moe_intermediate_size", 1, kMaxIntermediate);
    config.moe.normalize = fields.BoolOr("norm_topk_prob", false);
    const int64_t step = fields.IntOr("decoder_sparse_step", 1, 1, 1 << 20);
    const std::vector<int64_t> dense = fields.IntsOr("mlp_only_layers", {}, 0, 1 << 20);
    for (int64_t i = 0; i < config.num_layers; ++i) {
      LayerConfig& layer = config.layers[static_cast<size_t>(i)];
      layer.moe = (i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end();
      layer.window = window;
    }
    return;
  }
  const int64_t first_windowed = fields.IntOr("max_window_layers", 28, 0, 1 << 20);
  const std::vector<std::string> types = fields.StringsOr("layer_types", {});
  fields.Expect(types.empty() || types.size() == config.layers.size(), "layer_types",
                fmt::format("{} entries, one a layer", config.num_layers));
  for (size_t i = 0; i < config.layers.size(); ++i) {
    bool windowed = static_cast<int64_t>(i) >= first_windowed;
    if (i < types.size()) {
      windowed = types[i] == "sliding_attention";
      fields.Expect(windowed || types[i] == "full_attention", "layer_types",
                    "\"full_attention\" and \"sliding_attention\" only");
    }
    config.layers[i].window = windowed ? window : 0;
  }
}

void ReadMixtral(FieldReader& fields, ModelConfig& config) {
  ReadGqa(fields, 0, config);
  ReadExperts(fields, {"num_local_experts", "num_experts"}, 2, config);
  config.moe.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
  config.moe.normalize = true;
  const int64_t window = fields.IntOr("sliding_window", 0, 1, int64_t{1} << 40);
  for (LayerConfig& layer : config.layers) {
    layer.moe = true;
    layer.window = window;
  }
}

void ReadLlama(FieldReader& fields, ModelConfig& config) {
  ReadGqa(fields, 0, config);
  config.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
}

// Which Llama 4 layers rotate and which see only their chunk.
void ReadLlama4Layers(FieldReader& fields, ModelConfig& config) {
  const size_t num_layers = config.layers.size();
  const int64_t interval = fields.IntOr("no_rope_layer_interval", 4, 1, 1 << 20);
  const std::vector<int64_t> rope_flags = fields.IntsOr("no_rope_layers", {}, 0, 1);
  fields.Expect(rope_flags.empty() || rope_flags.size() >= num_layers, "no_rope_layers",
                fmt::format("at least {} entries, one a layer", num_layers));
  const std::vector<std::string> types = fields.StringsOr("layer_types", {});
  fields.Expect(types.empty() || types.size() == num_layers, "layer_types",
                fmt::format("{} entries, one a layer", num_layers));
  const int64_t chunk = fields.IntOr("attention_chunk_size", 8192, 1, int64_t{1} << 40);
  const int64_t step = fields.IntOr("interleave_moe_layer_step", 1, 1, 1 << 20);
  const bool has_list = fields.Has("moe_layers");
  const std::vector<int64_t> moe_layers = fields.IntsOr("moe_layers", {}, 0, 1 << 20);
  if (!fields.status()) return;
  for (size_t i = 0; i < num_layers; ++i) {
    LayerConfig& layer = config.layers[i];
    const int64_t idx = static_cast<int64_t>(i);
    layer.rope = rope_flags.empty() ? (idx + 1) % interval != 0 : rope_flags[i] != 0;
    bool chunked = layer.rope;
    if (!types.empty()) {
      chunked = types[i] == "chunked_attention";
      fields.Expect(chunked || types[i] == "full_attention", "layer_types",
                    "\"full_attention\" and \"chunked_attention\" only");
    }
    layer.chunk = chunked ? chunk : 0;
    layer.moe = has_list ? std::find(moe_layers.begin(), moe_layers.end(), idx) != moe_layers.end()
                         : (idx + 1) % step == 0;
  }
}

void ReadLlama4(FieldReader& fields, ModelConfig& config) {
  ReadGqa(fields, 128, config);
  AttentionConfig& attention = config.attention;
  attention.rope_interleaved = true;
  if (fields.BoolOr("use_qk_norm", true)) attention.qk_norm = QkNorm::kL2AfterRope;
  attention.temperature_tuning = fields.BoolOr("attn_temperature_tuning", true);
  attention.attn_scale = fields.NumberOr("attn_scale", 0.1, -1e6, 1e6);
  attention.floor_scale = fields.NumberOr("floor_scale", 8192, 1, 1e12);
  ReadExperts(fields, {"num_local_experts", "num_experts"}, 1, config);
  MoeConfig& moe = config.moe;
  moe.router = RouterKind::kSigmoidInput;
  moe.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
  moe.shared_intermediate_size = moe.intermediate_size;
  config.intermediate_size = fields.IntOr("intermediate_size_mlp", 16384, 1, kMaxIntermediate);
  ReadLlama4Layers(fields, config);
}

}  // namespace

void ReadFamily(FieldReader& fields, ModelConfig& config) {
  switch (config.family) {
    case Family::kDeepseek:
      return ReadDeepseek(fields, config);
    case Family::kQwen:
      return ReadQwen(fields, config);
    case Family::kMixtral:
      return ReadMixtral(fields, config);
    case Family::kLlama:
      return ReadLlama(fields, config);
    case Family::kLlama4:
      return ReadLlama4(fields, config);
  }
}

void ReadRope(FieldReader& fields, double default_theta, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.NumberOr("rope_theta", default_theta, 1e-6, 1e15);
  fields.Expect(fields.NumberOr("partial_rotary_factor", 1.0, 0, 1) == 1.0, "partial_rotary_factor",
                "1 (the whole head is rotated)");
  const char* name = fields.Spelling({"rope_scaling", "rope_parameters"});
  const nlohmann::json* scaling = fields.ObjectOrNull(name);
  if (scaling == nullptr) return;

  for (const auto& [key, value] : scaling->items()) {
    fields.Expect(!value.is_object(), name, "one rotation for all layers");
  }
  FieldReader inner(*scaling, fields.where(), fields.FieldName(name) + ".");
  rope.theta = inner.NumberOr("rope_theta", rope.theta, 1e-6, 1e15);
  const char* type_name = inner.Spelling({"rope_type", "type"});
  const std::string type = inner.StringOr(type_name, "default");
  inner.Expect(inner.NumberOr("partial_rotary_factor", 1.0, 0, 1) == 1.0, "partial_rotary_factor",
               "1 (the whole head is rotated)");
  if (type == "default") {
    rope.type = RopeType::kDefault;
  } else if (type == "linear") {
    rope.type = RopeType::kLinear;
  } else if (type == "yarn") {
    rope.type = RopeType::kYarn;
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
  } else {
    inner.Expect(false, type_name, "\"default\", \"linear\", \"yarn\" or \"llama3\"");
  }
  if (rope.type != RopeType::kDefault) rope.factor = inner.Number("factor", 1e-6, 1e6);
  // Some files keep the original length outside; transformers lets that one win.
  const int64_t original =
      inner.IntOr("original_max_position_embeddings", config.max_position, 1, int64_t{1} << 40);
  rope.original_max_position =
      fields.IntOr("original_max_position_embeddings", original, 1, int64_t{1} << 40);
  if (rope.type == RopeType::kLlama3) {
    rope.low_freq_factor = inner.Number("low_freq_factor", 1e-6, 1e6);
    rope.high_freq_factor = inner.Number("high_freq_factor", 1e-6, 1e6);
  }
  if (rope.type == RopeType::kYarn) {
    rope.beta_fast = inner.NumberOr("beta_fast", 32, 1e-6, 1e6);
    rope.beta_slow = inner.NumberOr("beta_slow", 1, 1e-6, 1e6);
    rope.truncate = inner.BoolOr("truncate", true);
    if (inner.Has("attention_factor")) {
      rope.attention_factor = inner.Number("attention_factor", 1e-6, 1e6);
    }
    rope.mscale = inner.NumberOr("mscale", 0, -1e6, 1e6);
  }
  // DeepSeek's attention takes it from any scaled type.
  if (rope.type != RopeType::kDefault) {
    rope.mscale_all_dim = inner.NumberOr("mscale_all_dim", 0, -1e6, 1e6);
  }
  if (!inner.status()) fields.Fail(inner.status().error());
}

}  // namespace moebius::model
