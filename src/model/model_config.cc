#include "model/model_config.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "model/config_families.h"
#include "model/json_text.h"

namespace moebius::model {
namespace {

constexpr size_t kMaxConfigBytes = 16u << 20;

struct KnownType {
  const char* model_type;
  Family family;
  double default_theta;
};
// default_theta: what transformers takes where the file gives none.
constexpr std::array<KnownType, 9> kKnownTypes = {{
    {"deepseek_v2", Family::kDeepseek, 10000.0},
    {"deepseek_v3", Family::kDeepseek, 10000.0},
    {"kimi_k2", Family::kDeepseek, 10000.0},
    {"qwen3_moe", Family::kQwen, 10000.0},
    {"qwen3", Family::kQwen, 10000.0},
    {"mixtral", Family::kMixtral, 1000000.0},
    {"llama", Family::kLlama, 10000.0},
    {"llama4", Family::kLlama4, 500000.0},
    {"llama4_text", Family::kLlama4, 500000.0},
}};

struct KnownArchitecture {
  const char* architecture;
  const char* model_type;  // where config.json gives none
};
constexpr std::array<KnownArchitecture, 9> kKnownArchitectures = {{
    {"DeepseekV2ForCausalLM", "deepseek_v2"},
    {"DeepseekV3ForCausalLM", "deepseek_v3"},
    {"KimiK2ForCausalLM", "kimi_k2"},
    {"Qwen3MoeForCausalLM", "qwen3_moe"},
    {"Qwen3ForCausalLM", "qwen3"},
    {"MixtralForCausalLM", "mixtral"},
    {"LlamaForCausalLM", "llama"},
    {"Llama4ForCausalLM", "llama4_text"},
    {"Llama4ForConditionalGeneration", "llama4"},
}};

template <typename Table, typename Name>
std::string NamesOf(const Table& table, Name name) {
  std::string names = "one of";
  for (size_t i = 0; i < table.size(); ++i) {
    names += fmt::format("{} {}", i == 0 ? "" : ",", table[i].*name);
  }
  return names;
}

// Settles model_type, architecture and family; the default theta of the type, or 0 after an error.
double ReadType(FieldReader& fields, ModelConfig& config) {
  const std::vector<std::string> architectures = fields.StringsOr("architectures", {});
  if (!architectures.empty()) config.architecture = architectures.front();
  config.model_type = fields.StringOr("model_type", "");
  if (!config.architecture.empty()) {
    const auto known = std::find_if(
        kKnownArchitectures.begin(), kKnownArchitectures.end(),
        [&](const KnownArchitecture& a) { return config.architecture == a.architecture; });
    if (known == kKnownArchitectures.end()) {
      fields.Expect(false, "architectures",
                    NamesOf(kKnownArchitectures, &KnownArchitecture::architecture));
      return 0;
    }
    if (config.model_type.empty()) config.model_type = known->model_type;
  }
  for (const KnownType& type : kKnownTypes) {
    if (config.model_type == type.model_type) {
      config.family = type.family;
      return type.default_theta;
    }
  }
  fields.Expect(false, "model_type", NamesOf(kKnownTypes, &KnownType::model_type));
  return 0;
}

void ReadDtype(FieldReader& fields, ModelConfig& config) {
  const char* name = fields.Spelling({"dtype", "torch_dtype"});
  const std::string dtype = fields.StringOr(name, "bfloat16");
  if (dtype == "bfloat16") {
    config.dtype = DType::kBF16;
  } else if (dtype == "float16") {
    config.dtype = DType::kF16;
  } else if (dtype == "float32") {
    config.dtype = DType::kF32;
  } else {
    fields.Expect(false, name, "bfloat16, float16 or float32");
  }
}

void ReadQuantization(FieldReader& top, ModelConfig& config) {
  const nlohmann::json* object = top.ObjectOrNull("quantization_config");
  if (object == nullptr) return;
  FieldReader fields(*object, top.where(), "quantization_config.");
  fields.Expect(fields.StringOr("quant_method", "") == "fp8", "quant_method",
                "\"fp8\" (e4m3 with 128 x 128 block scales)");
  fields.Expect(fields.StringOr("fmt", "e4m3") == "e4m3", "fmt", "\"e4m3\"");
  fields.Expect(fields.StringOr("activation_scheme", "dynamic") == "dynamic", "activation_scheme",
                "\"dynamic\"");
  fields.Expect(
      fields.IntsOr("weight_block_size", {}, 1, 1 << 20) == std::vector<int64_t>{128, 128},
      "weight_block_size", "[128,128]");
  if (!fields.status()) top.Fail(fields.status().error());
  config.fp8_blocks = true;
}

// eos_token_id is a number or a list; ids outside the vocabulary are errors.
void ReadEndTokens(const nlohmann::json& object, FieldReader& fields, ModelConfig& config) {
  const auto it = object.find("eos_token_id");
  if (it == object.end() || it->is_null()) return;
  std::vector<int64_t> ids;
  if (it->is_array()) {
    ids = fields.IntsOr("eos_token_id", {}, 0, config.vocab_size - 1);
  } else {
    ids = {fields.Int("eos_token_id", 0, config.vocab_size - 1)};
  }
  for (const int64_t id : ids) {
    const TokenId token = static_cast<TokenId>(id);
    if (std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) ==
        config.eos_token_ids.end()) {
      config.eos_token_ids.push_back(token);
    }
  }
}

void ReadCommon(FieldReader& fields, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", 1, 1 << 24);
  config.hidden_size = fields.Int("hidden_size", 1, 1 << 20);
  config.num_layers = fields.Int("num_hidden_layers", 1, 1024);
  config.max_position = fields.Int("max_position_embeddings", 1, 1 << 28);
  config.rms_norm_eps = fields.NumberOr(
      "rms_norm_eps",
      config.family == Family::kMixtral || config.family == Family::kLlama4 ? 1e-5 : 1e-6, 0, 1);
  config.tie_embeddings = fields.BoolOr("tie_word_embeddings", false);
  fields.Expect(fields.StringOr("hidden_act", "silu") == "silu", "hidden_act", "\"silu\"");
  fields.Expect(!fields.BoolOr("attention_bias", false), "attention_bias", "false");
  fields.Expect(!fields.BoolOr("mlp_bias", false), "mlp_bias", "false");
  // Fields of other models that would change the mathematics.
  for (const char* name : {"final_logit_softcapping", "attn_logit_softcapping", "logit_scale"}) {
    fields.Expect(!fields.Has(name), name, "no such field");
  }
  config.layers.resize(static_cast<size_t>(config.num_layers));
}

Status ReadGeneration(const nlohmann::json& object, const std::string& where, ModelConfig& config) {
  FieldReader fields(object, where);
  ReadEndTokens(object, fields, config);
  GenerationDefaults& defaults = config.generation;
  if (fields.Has("temperature")) defaults.temperature = fields.Number("temperature", 0, 1e6);
  if (fields.Has("top_k")) defaults.top_k = fields.Int("top_k", -1, 1 << 24);
  if (fields.Has("top_p")) defaults.top_p = fields.Number("top_p", 0, 1);
  if (fields.Has("min_p")) defaults.min_p = fields.Number("min_p", 0, 1);
  if (fields.Has("repetition_penalty")) {
    defaults.repetition_penalty = fields.Number("repetition_penalty", 1e-6, 1e6);
  }
  // An explicit "do not sample" is a recommendation of its own; files that say nothing leave it
  // open.
  if (!fields.BoolOr("do_sample", true)) defaults.temperature = 0;
  return fields.status();
}

Result<ModelConfig> ParseConfig(const nlohmann::json& object, const std::string& where) {
  if (!object.is_object()) {
    return MakeError(ErrorCode::kCorrupt, "{}: expected a JSON object", where);
  }
  ModelConfig config;
  FieldReader top(object, where);
  const double default_theta = ReadType(top, config);
  MOEBIUS_TRY(top.status());
  // Multimodal folders keep the language model's fields in text_config; what is not there stays
  // outside.
  nlohmann::json merged = object;
  std::string prefix;
  if (config.model_type == "llama4") {
    const nlohmann::json* text = top.ObjectOrNull("text_config");
    if (text == nullptr) {
      top.Expect(false, "text_config", "an object (the language model's fields)");
      return tl::unexpected<Error>(top.status().error());
    }
    MergeJson(merged, *text);
    merged.erase("text_config");
    config.tensor_prefix = "language_model.";
    prefix = "text_config.";
  }
  FieldReader fields(merged, where, prefix);
  ReadCommon(fields, config);
  ReadDtype(fields, config);
  ReadQuantization(fields, config);
  MOEBIUS_TRY(fields.status());
  ReadFamily(fields, config);
  ReadRope(fields, default_theta, config);
  ReadEndTokens(merged, fields, config);
  if (fields.Has("bos_token_id")) {
    config.bos_token_id =
        static_cast<TokenId>(fields.Int("bos_token_id", 0, config.vocab_size - 1));
  }
  MOEBIUS_TRY(fields.status());
  return config;
}

Result<ModelConfig> Build(nlohmann::json object, const nlohmann::json* generation,
                          const std::string& hf_overrides, const std::string& folder) {
  if (!hf_overrides.empty()) {
    nlohmann::json overrides;
    MOEBIUS_TRY(ParseJson(hf_overrides, "--hf-overrides", overrides));
    if (!overrides.is_object()) {
      return MakeError(ErrorCode::kInvalidArgument, "--hf-overrides: expected a JSON object");
    }
    for (const auto& [name, value] : overrides.items()) {
      if (!object.contains(name)) {
        LogWarning(
            "--hf-overrides: {}/config.json has no field '{}': a misspelt one changes nothing",
            folder, name);
      }
    }
    MergeJson(object, overrides);
  }
  MOEBIUS_ASSIGN(ModelConfig config, ParseConfig(object, folder + "/config.json"));
  if (generation != nullptr) {
    // Its end tokens come first: they are the ones meant for generation.
    std::vector<TokenId> from_config = std::exchange(config.eos_token_ids, {});
    const std::string where = folder + "/generation_config.json";
    if (!generation->is_object()) {
      return MakeError(ErrorCode::kCorrupt, "{}: expected a JSON object", where);
    }
    MOEBIUS_TRY(ReadGeneration(*generation, where, config));
    for (const TokenId token : from_config) {
      if (std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) ==
          config.eos_token_ids.end()) {
        config.eos_token_ids.push_back(token);
      }
    }
  }
  return config;
}

}  // namespace

const char* FamilyName(Family family) {
  switch (family) {
    case Family::kDeepseek:
      return "deepseek";
    case Family::kQwen:
      return "qwen";
    case Family::kMixtral:
      return "mixtral";
    case Family::kLlama:
      return "llama";
    case Family::kLlama4:
      return "llama4";
  }
  return "unknown";
}

const char* RopeTypeName(RopeType type) {
  switch (type) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kLlama3:
      return "llama3";
  }
  return "unknown";
}

int64_t ModelConfig::num_moe_layers() const {
  return std::count_if(layers.begin(), layers.end(),
                       [](const LayerConfig& layer) { return layer.moe; });
}

Result<ModelConfig> LoadModelConfig(const std::string& folder, const std::string& hf_overrides) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return MakeError(
        ErrorCode::kNotFound,
        "{}: no such folder; expected a Hugging Face folder on this machine (nothing is "
        "downloaded)",
        folder);
  }
  if (!std::filesystem::exists(folder + "/config.json", error)) {
    return MakeError(ErrorCode::kNotFound, "{}: no model: config.json is missing", folder);
  }
  nlohmann::json object;
  MOEBIUS_TRY(ReadJsonFile(folder + "/config.json", kMaxConfigBytes, object));
  const std::string generation_path = folder + "/generation_config.json";
  if (!std::filesystem::exists(generation_path, error)) {
    return Build(std::move(object), nullptr, hf_overrides, folder);
  }
  nlohmann::json generation;
  MOEBIUS_TRY(ReadJsonFile(generation_path, kMaxConfigBytes, generation));
  return Build(std::move(object), &generation, hf_overrides, folder);
}

Result<ModelConfig> ParseModelConfig(const std::string& config_json,
                                     const std::string& generation_json,
                                     const std::string& hf_overrides, const std::string& where) {
  nlohmann::json object;
  MOEBIUS_TRY(ParseJson(config_json, where + "/config.json", object));
  if (generation_json.empty()) return Build(std::move(object), nullptr, hf_overrides, where);
  nlohmann::json generation;
  MOEBIUS_TRY(ParseJson(generation_json, where + "/generation_config.json", generation));
  return Build(std::move(object), &generation, hf_overrides, where);
}

}  // namespace moebius::model
