// From a folder, a file or a name to a ModelShape.
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/suggest.h"
#include "model/json_text.h"
#include "model/model_config.h"
#include "plan/config_numbers.h"
#include "plan/known_models.h"
#include "plan/model_shape.h"

namespace moebius::plan {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = 16u << 20;

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

std::string ShortName(std::string_view name) {
  return Lower(name.substr(name.find('/') == std::string_view::npos ? 0 : name.find('/') + 1));
}

std::vector<std::string> Words(const std::string& name) {
  std::vector<std::string> words;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('-', begin), name.size());
    words.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

// "qwen3-coder-480b-fp8" means the name whose words hold these in this order, first one first.
bool Abbreviates(const std::vector<std::string>& words, const std::vector<std::string>& name) {
  if (words.size() < 2 || words.front() != name.front()) return false;
  size_t at = 0;
  for (const std::string& word : name) {
    if (at < words.size() && words[at] == word) ++at;
  }
  return at == words.size();
}

// The built-in model that `name` means, or null: by its hub name, its short one, or its words, with
// fewest further ones; null, too, where those leave two that differ.
const KnownModel* FindKnown(const std::string& name) {
  const std::string lower = Lower(name);
  for (const KnownModel& model : KnownModelTable()) {
    if (lower == Lower(model.name) || lower == ShortName(model.name)) return &model;
  }
  const std::vector<std::string> words = Words(lower);
  const KnownModel* best = nullptr;
  size_t best_size = SIZE_MAX;
  bool unique = false;
  for (const KnownModel& model : KnownModelTable()) {
    const std::vector<std::string> known = Words(ShortName(model.name));
    if (!Abbreviates(words, known) || known.size() > best_size) continue;
    const bool shorter = known.size() < best_size;
    unique = shorter || (unique && best->config_json == model.config_json &&
                         best->quantization_json == model.quantization_json);
    if (!shorter) continue;
    best_size = known.size();
    best = &model;
  }
  return unique ? best : nullptr;
}

// " (did you mean ...?)" with a hub name, or nothing: whole names are compared, then as many words
// of the short names as were given.
std::string NearestKnown(const std::string& name) {
  const std::vector<std::string> names = KnownModels();
  if (std::string hint = DidYouMean(name, names); !hint.empty()) return hint;
  const std::string asked = ShortName(name);
  const size_t num_words = Words(asked).size();
  std::vector<std::string> heads;
  for (const std::string& known : names) {
    std::vector<std::string> words = Words(ShortName(known));
    words.resize(std::min(words.size(), num_words));
    heads.push_back(fmt::format("{}", fmt::join(words, "-")));
  }
  const std::string nearest = Nearest(asked, heads);
  const auto at = std::find(heads.begin(), heads.end(), nearest);
  if (nearest.empty() || at == heads.end()) return "";
  return fmt::format(" (did you mean {}?)", names[static_cast<size_t>(at - heads.begin())]);
}

ModelShape FromModelConfig(const model::ModelConfig& config) {
  ModelShape shape;
  const model::AttentionConfig& attention = config.attention;
  layout::ModelNumbers& numbers = shape.numbers;
  numbers.mla = attention.kind == model::AttentionKind::kMla;
  numbers.num_layers = config.num_layers;
  numbers.hidden_size = config.hidden_size;
  numbers.num_heads = attention.num_heads;
  numbers.num_kv_heads = attention.num_kv_heads;
  numbers.vocab_size = config.vocab_size;
  numbers.dense_intermediate_size = config.intermediate_size;
  numbers.num_experts = config.moe.num_experts;
  numbers.top_k = config.moe.top_k;
  numbers.expert_intermediate_size = config.moe.intermediate_size;
  numbers.shared_intermediate_size = config.moe.shared_intermediate_size;
  numbers.fp8_block = config.fp8_blocks ? 128 : 0;
  shape.q_lora_rank = attention.q_lora_rank;
  shape.kv_lora_rank = attention.kv_lora_rank;
  shape.qk_nope_head_dim = attention.qk_nope_head_dim;
  shape.qk_rope_head_dim = attention.qk_rope_head_dim;
  shape.head_dim = attention.head_dim;
  shape.v_head_dim = numbers.mla ? attention.v_head_dim : attention.head_dim;
  shape.tie_embeddings = config.tie_embeddings;
  for (const model::LayerConfig& layer : config.layers) {
    shape.moe_layers.push_back(layer.moe);
    const int64_t window = std::max(layer.window, layer.chunk);
    shape.windowed_layers.push_back(window > 0);
    shape.window = std::max(shape.window, window);
  }
  const double dtype = static_cast<double>(SizeOf(config.dtype));
  shape.other_bytes = dtype;
  shape.weight_bytes = config.fp8_blocks ? 1 + 4.0 / (128 * 128) : dtype;
  shape.expert_weight_bytes = shape.weight_bytes;
  return shape;
}

// Our own reader names folder + "/config.json" in its errors; the file may be called otherwise.
Error NamedAfter(const Error& error, const std::string& folder, const std::string& where) {
  const std::string named = folder + "/config.json";
  std::string message = error.message();
  const size_t at = message.find(named);
  if (at != std::string::npos) message.replace(at, named.size(), where);
  return Error(error.code(), message);
}

Result<ModelShape> FromJson(const nlohmann::json& config, const std::string& folder,
                            const std::string& where, const std::string& hf_overrides) {
  nlohmann::json merged = config;
  if (!hf_overrides.empty()) {
    nlohmann::json overrides;
    MOEBIUS_TRY(model::ParseJson(hf_overrides, "--hf-overrides", overrides));
    if (!overrides.is_object()) {
      return MakeError(ErrorCode::kInvalidArgument, "--hf-overrides: expected a JSON object");
    }
    model::MergeJson(merged, overrides);
  }
  if (!merged.is_object()) {
    return MakeError(ErrorCode::kCorrupt, "{}: expected a JSON object", where);
  }
  auto parsed = model::ParseModelConfig(merged.dump(), "", "", folder);
  const bool refused = !parsed && parsed.error().code() == ErrorCode::kUnsupported;
  if (refused && merged.contains("quantization_config")) {
    // A weight format that is not served leaves the sizes as they are.
    nlohmann::json plain = merged;
    plain.erase("quantization_config");
    parsed = model::ParseModelConfig(plain.dump(), "", "", folder);
  }
  if (parsed) {
    ModelShape shape = FromModelConfig(*parsed);
    if (refused) MOEBIUS_TRY(ReadQuantization(merged, where, shape));
    FinishShape(shape);
    return shape;
  }
  if (parsed.error().code() != ErrorCode::kUnsupported) {
    return tl::unexpected<Error>(NamedAfter(parsed.error(), folder, where));
  }
  return ReadConfigNumbers(merged, where);
}

Result<ModelShape> FromFile(const fs::path& path, const std::string& hf_overrides) {
  nlohmann::json config;
  MOEBIUS_TRY(model::ReadJsonFile(path.string(), kMaxConfigBytes, config));
  const bool usual = path.filename() == "config.json" && path.has_parent_path();
  return FromJson(config, usual ? path.parent_path().string() : path.string(), path.string(),
                  hf_overrides);
}

Result<nlohmann::json> ConfigOf(const KnownModel& known) {
  nlohmann::json config;
  MOEBIUS_TRY(model::ParseJson(known.config_json, known.name, config));
  if (const std::string_view text = known.quantization_json; !text.empty()) {
    nlohmann::json quantization;
    MOEBIUS_TRY(model::ParseJson(text, known.name, quantization));
    model::MergeJson(config, quantization);
  }
  return config;
}

std::string LastName(const fs::path& path) {
  const fs::path plain = fs::path(path.string()).lexically_normal();
  return plain.has_filename() ? plain.filename().string() : plain.parent_path().filename().string();
}

}  // namespace

std::vector<std::string> KnownModels() {
  std::vector<std::string> names;
  for (const KnownModel& model : KnownModelTable()) names.emplace_back(model.name);
  return names;
}

Result<std::string> KnownConfig(const std::string& model) {
  const KnownModel* known = FindKnown(model);
  if (known == nullptr) {
    return MakeError(ErrorCode::kNotFound, "no configuration of '{}' is known here{}", model,
                     NearestKnown(model));
  }
  MOEBIUS_ASSIGN(const nlohmann::json config, ConfigOf(*known));
  return config.dump(2);
}

Result<ModelShape> LoadModelShape(const std::string& model, const std::string& hf_overrides) {
  std::error_code error;
  ModelShape shape;
  if (fs::is_directory(model, error)) {
    MOEBIUS_ASSIGN(shape, FromFile(fs::path(model) / "config.json", hf_overrides));
    shape.name = LastName(model);
    shape.served = model;
  } else if (fs::exists(model, error)) {
    MOEBIUS_ASSIGN(shape, FromFile(model, hf_overrides));
    const std::string parent = LastName(fs::path(model).parent_path());
    shape.name = parent.empty() ? LastName(model) : parent;
    shape.served = fs::path(model).has_parent_path() ? fs::path(model).parent_path().string() : ".";
  } else if (const KnownModel* known = FindKnown(model)) {
    MOEBIUS_ASSIGN(const nlohmann::json config, ConfigOf(*known));
    MOEBIUS_ASSIGN(shape, FromJson(config, known->name, known->name, hf_overrides));
    shape.name = shape.served = known->name;
  } else {
    const std::vector<std::string> names = KnownModels();
    return MakeError(ErrorCode::kNotFound,
                     "model '{}': expected a folder with config.json, a config.json, or a known "
                     "name{}; known are {}",
                     model, NearestKnown(model), fmt::join(names, ", "));
  }
  shape.numbers.name = shape.name;
  shape.hf_overrides = hf_overrides;
  return shape;
}

}  // namespace moebius::plan
