#include "plan/config_numbers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/field_reader.h"
#include "model/json_text.h"

namespace moebius::plan {
namespace {

using model::FieldReader;

constexpr int64_t kMaxSize = 1 << 24;

void ReadAttention(FieldReader& fields, ModelShape& shape) {
  layout::ModelNumbers& numbers = shape.numbers;
  numbers.num_heads = fields.Int("num_attention_heads", 1, 1 << 14);
  if (!fields.status()) return;
  numbers.mla = fields.Has("kv_lora_rank");
  if (numbers.mla) {
    numbers.num_kv_heads = 1;
    shape.q_lora_rank = fields.IntOr("q_lora_rank", 0, 0, kMaxSize);
    shape.kv_lora_rank = fields.Int("kv_lora_rank", 1, kMaxSize);
    shape.qk_nope_head_dim = fields.Int("qk_nope_head_dim", 1, kMaxSize);
    shape.qk_rope_head_dim = fields.Int("qk_rope_head_dim", 1, kMaxSize);
    shape.v_head_dim = fields.Int("v_head_dim", 1, kMaxSize);
    return;
  }
  numbers.num_kv_heads = fields.IntOr("num_key_value_heads", numbers.num_heads, 1, 1 << 14);
  shape.head_dim = fields.IntOr("head_dim", numbers.hidden_size / numbers.num_heads, 1, kMaxSize);
  shape.v_head_dim = fields.IntOr("v_head_dim", shape.head_dim, 1, kMaxSize);
}

void ReadWindows(FieldReader& fields, const std::string& model_type, ModelShape& shape) {
  const int64_t window = fields.IntOr(fields.Spelling({"sliding_window", "attention_chunk_size"}),
                                      0, 0, int64_t{1} << 40);
  shape.windowed_layers.assign(static_cast<size_t>(shape.numbers.num_layers), false);
  if (window == 0 || !fields.BoolOr("use_sliding_window", true)) return;
  shape.window = window;
  const std::vector<std::string> types = fields.StringsOr("layer_types", {});
  for (size_t i = 0; i < shape.windowed_layers.size(); ++i) {
    if (i < types.size()) {
      shape.windowed_layers[i] = types[i] != "full_attention";
    } else {
      // GPT-OSS alternates where it does not say.
      shape.windowed_layers[i] = model_type != "gpt_oss" || i % 2 == 0;
    }
  }
}

void ReadLayers(FieldReader& fields, ModelShape& shape) {
  const auto size = static_cast<size_t>(shape.numbers.num_layers);
  shape.moe_layers.assign(size, shape.numbers.num_experts > 0);
  if (shape.numbers.num_experts == 0) return;
  const int64_t first = fields.IntOr("first_k_dense_replace", 0, 0, 1 << 20);
  const int64_t step = fields.IntOr(
      fields.Spelling({"interleave_moe_layer_step", "decoder_sparse_step"}), 1, 1, 1 << 20);
  const std::vector<int64_t> dense = fields.IntsOr("mlp_only_layers", {}, 0, 1 << 20);
  for (size_t i = 0; i < size; ++i) {
    const auto idx = static_cast<int64_t>(i);
    shape.moe_layers[i] = idx >= first && (idx + 1) % step == 0 &&
                          std::find(dense.begin(), dense.end(), idx) == dense.end();
  }
}

void ReadFfn(FieldReader& fields, ModelShape& shape) {
  layout::ModelNumbers& numbers = shape.numbers;
  numbers.num_experts =
      fields.IntOr(fields.Spelling({"n_routed_experts", "num_local_experts", "num_experts",
                                    "moe_num_experts", "num_routed_experts"}),
                   0, 0, 1 << 20);
  const char* dense_width = fields.Spelling({"intermediate_size_mlp", "intermediate_size"});
  if (numbers.num_experts == 0) {
    numbers.dense_intermediate_size = fields.Int(dense_width, 1, kMaxSize);
    return;
  }
  numbers.dense_intermediate_size = fields.IntOr(dense_width, 0, 0, kMaxSize);
  numbers.top_k = fields.Int(fields.Spelling({"num_experts_per_tok", "experts_per_token",
                                              "moe_topk", "moe_top_k", "num_experts_per_token"}),
                             1, numbers.num_experts);
  // Families that know only experts call their width intermediate_size.
  numbers.expert_intermediate_size = fields.Int(
      fields.Spelling({"moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"}), 1,
      kMaxSize);
  const int64_t shared =
      numbers.expert_intermediate_size *
      fields.IntOr(fields.Spelling({"n_shared_experts", "num_shared_experts"}), 0, 0, 1 << 10);
  numbers.shared_intermediate_size =
      fields.IntOr(fields.Spelling({"shared_expert_intermediate_size", "shared_intermediate_size"}),
                   shared, 0, kMaxSize);
}

double DtypeBytes(FieldReader& fields) {
  const std::string dtype = fields.StringOr(fields.Spelling({"dtype", "torch_dtype"}), "bfloat16");
  return dtype == "float32" ? 4 : 2;
}

// Bits of the first group of compressed-tensors, scales included.
double CompressedBytes(const nlohmann::json& quantization) {
  const auto groups = quantization.find("config_groups");
  if (groups == quantization.end() || !groups->is_object() || groups->empty()) return 0;
  const nlohmann::json& group = groups->begin().value();
  if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) return 0;
  FieldReader weights(group["weights"], "");
  const double bits = static_cast<double>(weights.IntOr("num_bits", 16, 1, 64));
  const int64_t group_size = weights.IntOr("group_size", 0, -1, 1 << 20);
  return bits / 8 + (group_size > 0 ? (bits <= 4 && group_size == 16 ? 1.0 : 2.0) / group_size : 0);
}

// Are the weights outside of the experts left as they were?
bool KeepsAttention(const nlohmann::json& quantization) {
  for (const char* name : {"ignore", "modules_to_not_convert"}) {
    const auto list = quantization.find(name);
    if (list == quantization.end() || !list->is_array()) continue;
    for (const nlohmann::json& item : *list) {
      if (item.is_string() && item.get<std::string>().find("self_attn") != std::string::npos) {
        return true;
      }
    }
  }
  return false;
}

void ReadWeightBytes(FieldReader& fields, ModelShape& shape) {
  const double dtype = DtypeBytes(fields);
  shape.weight_bytes = shape.expert_weight_bytes = shape.other_bytes = dtype;
  const nlohmann::json* object = fields.ObjectOrNull("quantization_config");
  if (object == nullptr) return;
  FieldReader quantization(*object, fields.where(), "quantization_config.");
  const std::string method = quantization.StringOr("quant_method", "");
  double bytes = dtype;
  if (method == "fp8") {
    const std::vector<int64_t> block = quantization.IntsOr("weight_block_size", {}, 1, 1 << 20);
    bytes = 1;
    if (block.size() == 2) {
      shape.numbers.fp8_block = std::max(block[0], block[1]);
      bytes += 4.0 / static_cast<double>(block[0] * block[1]);
    }
  } else if (method == "mxfp4") {
    shape.expert_weight_bytes = 0.5 + 1.0 / 32;
    return;
  } else if (method == "compressed-tensors") {
    if (const double packed = CompressedBytes(*object); packed > 0) bytes = packed;
  } else if (method == "modelopt") {
    const std::string algorithm = quantization.StringOr("quant_algo", "FP8");
    bytes = algorithm.find("FP4") != std::string::npos ? 0.5 + 1.0 / 16 : 1;
  } else if (method == "gptq" || method == "awq") {
    bytes = static_cast<double>(quantization.IntOr("bits", 4, 1, 16)) / 8 +
            2.0 / static_cast<double>(quantization.IntOr("group_size", 128, 1, 1 << 20));
  }
  shape.expert_weight_bytes = bytes;
  if (!KeepsAttention(*object)) shape.weight_bytes = bytes;
  if (!quantization.status()) fields.Fail(quantization.status().error());
}

}  // namespace

void FinishShape(ModelShape& shape) {
  shape.num_moe_layers = std::count(shape.moe_layers.begin(), shape.moe_layers.end(), true);
  shape.num_dense_layers = shape.numbers.num_layers - shape.num_moe_layers;
  shape.num_windowed_layers =
      std::count(shape.windowed_layers.begin(), shape.windowed_layers.end(), true);
  if (shape.num_dense_layers == 0) shape.numbers.dense_intermediate_size = 0;
  shape.numbers.name = shape.name;
}

Status ReadQuantization(const nlohmann::json& config, const std::string& where, ModelShape& shape) {
  FieldReader fields(config, where);
  ReadWeightBytes(fields, shape);
  return fields.status();
}

Result<ModelShape> ReadConfigNumbers(const nlohmann::json& config, const std::string& where) {
  nlohmann::json merged = config;
  std::string prefix;
  if (const auto text = config.find("text_config"); text != config.end() && text->is_object()) {
    model::MergeJson(merged, *text);
    prefix = "text_config.";
  }
  FieldReader fields(merged, where, prefix);
  ModelShape shape;
  shape.numbers.hidden_size = fields.Int("hidden_size", 1, kMaxSize);
  shape.numbers.num_layers = fields.Int("num_hidden_layers", 1, 1024);
  shape.numbers.vocab_size = fields.Int("vocab_size", 1, kMaxSize);
  shape.tie_embeddings = fields.BoolOr("tie_word_embeddings", false);
  MOEBIUS_TRY(fields.status());
  ReadAttention(fields, shape);
  ReadFfn(fields, shape);
  MOEBIUS_TRY(fields.status());
  ReadLayers(fields, shape);
  ReadWindows(fields, fields.StringOr("model_type", ""), shape);
  ReadWeightBytes(fields, shape);
  MOEBIUS_TRY(fields.status());
  FinishShape(shape);
  return shape;
}

}  // namespace moebius::plan
