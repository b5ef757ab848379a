#include "frontend/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "model/field_reader.h"

namespace moebius::frontend {
namespace {

using model::FieldReader;

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr double kMaxFloat = std::numeric_limits<float>::max();
constexpr float kMaxBias = 100;  // OpenAI's bounds; vLLM clamps to them, too

void Read(FieldReader& reader, const char* name, std::optional<int32_t>& out) {
  if (reader.Has(name)) out = static_cast<int32_t>(reader.Int(name, -kMaxInt32, kMaxInt32));
}
void ReadSeed(FieldReader& reader, std::optional<uint64_t>& out) {
  if (!reader.Has("seed")) return;
  const int64_t seed =
      reader.Int("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  if (seed != -1) out = static_cast<uint64_t>(seed);
}
void ReadLogprobs(FieldReader& reader, const char* name, std::optional<int32_t>& out) {
  if (reader.Has(name)) out = static_cast<int32_t>(reader.Int(name, 0, engine::kMaxLogprobs));
}
void Read(FieldReader& reader, const char* name, std::optional<float>& out) {
  if (reader.Has(name)) out = static_cast<float>(reader.Number(name, -kMaxFloat, kMaxFloat));
}
void Read(FieldReader& reader, const char* name, std::optional<bool>& out) {
  if (reader.Has(name)) out = reader.BoolOr(name, false);
}
void Read(FieldReader& reader, const char* name, std::optional<std::vector<TokenId>>& out) {
  if (!reader.Has(name)) return;
  const std::vector<int64_t> ids = reader.IntsOr(name, {}, 0, kMaxInt32);
  out.emplace(ids.begin(), ids.end());
}
void Read(FieldReader& reader, const char* name, std::optional<std::string>& out) {
  if (reader.Has(name)) out = reader.StringOr(name, "");
}
void ReadLogitBias(FieldReader& reader,
                   std::optional<std::vector<std::pair<TokenId, float>>>& out) {
  const nlohmann::json* biases = reader.ObjectOrNull("logit_bias");
  if (biases == nullptr) return;
  out.emplace();
  for (const auto& [key, value] : biases->items()) {
    TokenId token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (key.empty() || error != std::errc() || end != key.data() + key.size() || token < 0 ||
        !value.is_number()) {
      reader.Fail(
          Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: field 'logit_bias' has \"{}\": {}, expected token ids and numbers",
                            reader.where(), key.substr(0, 40), value.type_name())));
      return;
    }
    const double bias = value.get<double>();
    out->emplace_back(token, static_cast<float>(std::clamp<double>(bias, -kMaxBias, kMaxBias)));
  }
}
// A list, or one string for a list of one.
void Read(FieldReader& reader, const nlohmann::json& object, const char* name,
          std::optional<std::vector<std::string>>& out) {
  if (!reader.Has(name)) return;
  if (object[name].is_string()) {
    out.emplace({object[name].get<std::string>()});
  } else {
    out = reader.StringsOr(name, {});
  }
}

}  // namespace

void SamplingFields::Override(const SamplingFields& over) {
  const auto take = [](auto& field, const auto& other) {
    if (other) field = other;
  };
  take(max_tokens, over.max_tokens);
  take(min_tokens, over.min_tokens);
  take(temperature, over.temperature);
  take(top_k, over.top_k);
  take(top_p, over.top_p);
  take(min_p, over.min_p);
  take(repetition_penalty, over.repetition_penalty);
  take(presence_penalty, over.presence_penalty);
  take(frequency_penalty, over.frequency_penalty);
  take(seed, over.seed);
  take(stop, over.stop);
  take(stop_token_ids, over.stop_token_ids);
  take(ignore_eos, over.ignore_eos);
  take(logprobs, over.logprobs);
  take(prompt_logprobs, over.prompt_logprobs);
  take(logit_bias, over.logit_bias);
  take(allowed_token_ids, over.allowed_token_ids);
  take(bad_words, over.bad_words);
  take(include_stop_str_in_output, over.include_stop_str_in_output);
  take(skip_special_tokens, over.skip_special_tokens);
  take(cache_salt, over.cache_salt);
  take(priority, over.priority);
}

void SamplingFields::Apply(GenerateRequest& request) const {
  const auto put = []<typename Field, typename Target>(const Field& field, Target& target) {
    if (!field) return;
    if constexpr (std::is_same_v<Field, Target>) {
      target = field;
    } else {
      target = *field;
    }
  };
  engine::SamplingParams& sampling = request.sampling;
  put(max_tokens, sampling.max_tokens);
  put(min_tokens, sampling.min_tokens);
  put(temperature, sampling.temperature);
  put(top_k, sampling.top_k);
  put(top_p, sampling.top_p);
  put(min_p, sampling.min_p);
  put(repetition_penalty, sampling.repetition_penalty);
  put(presence_penalty, sampling.presence_penalty);
  put(frequency_penalty, sampling.frequency_penalty);
  put(seed, sampling.seed);
  put(stop, request.stop);
  put(stop_token_ids, sampling.stop_token_ids);
  put(ignore_eos, sampling.ignore_eos);
  put(logprobs, sampling.num_logprobs);
  put(prompt_logprobs, sampling.num_prompt_logprobs);
  put(logit_bias, sampling.logit_bias);
  put(allowed_token_ids, sampling.allowed_token_ids);
  put(bad_words, request.bad_words);
  put(include_stop_str_in_output, request.include_stop_str_in_output);
  put(skip_special_tokens, request.skip_special_tokens);
  put(cache_salt, request.cache_salt);
  put(priority, request.priority);
}

Result<SamplingFields> ParseSamplingFields(const nlohmann::json& object, const std::string& where) {
  FieldReader reader(object, where);
  SamplingFields fields;
  Read(reader, "max_tokens", fields.max_tokens);
  Read(reader, "min_tokens", fields.min_tokens);
  Read(reader, "temperature", fields.temperature);
  Read(reader, "top_k", fields.top_k);
  Read(reader, "top_p", fields.top_p);
  Read(reader, "min_p", fields.min_p);
  Read(reader, "repetition_penalty", fields.repetition_penalty);
  Read(reader, "presence_penalty", fields.presence_penalty);
  Read(reader, "frequency_penalty", fields.frequency_penalty);
  ReadSeed(reader, fields.seed);
  Read(reader, object, "stop", fields.stop);
  Read(reader, "stop_token_ids", fields.stop_token_ids);
  Read(reader, "ignore_eos", fields.ignore_eos);
  ReadLogprobs(reader, "logprobs", fields.logprobs);
  ReadLogprobs(reader, "prompt_logprobs", fields.prompt_logprobs);
  ReadLogitBias(reader, fields.logit_bias);
  Read(reader, "allowed_token_ids", fields.allowed_token_ids);
  Read(reader, object, "bad_words", fields.bad_words);
  Read(reader, "include_stop_str_in_output", fields.include_stop_str_in_output);
  Read(reader, "skip_special_tokens", fields.skip_special_tokens);
  Read(reader, "cache_salt", fields.cache_salt);
  Read(reader, "priority", fields.priority);
  MOEBIUS_TRY(reader.status());
  return fields;
}

const std::vector<std::string>& SamplingFieldNames() {
  static const std::vector<std::string> kNames = {"max_tokens",
                                                  "min_tokens",
                                                  "temperature",
                                                  "top_k",
                                                  "top_p",
                                                  "min_p",
                                                  "repetition_penalty",
                                                  "presence_penalty",
                                                  "frequency_penalty",
                                                  "seed",
                                                  "stop",
                                                  "stop_token_ids",
                                                  "ignore_eos",
                                                  "logprobs",
                                                  "prompt_logprobs",
                                                  "logit_bias",
                                                  "allowed_token_ids",
                                                  "bad_words",
                                                  "include_stop_str_in_output",
                                                  "skip_special_tokens",
                                                  "cache_salt",
                                                  "priority"};
  return kNames;
}

SamplingFields FieldsOf(const model::GenerationDefaults& defaults) {
  SamplingFields fields;
  if (defaults.temperature) fields.temperature = static_cast<float>(*defaults.temperature);
  if (defaults.top_k) fields.top_k = static_cast<int32_t>(*defaults.top_k);
  if (defaults.top_p) fields.top_p = static_cast<float>(*defaults.top_p);
  if (defaults.min_p) fields.min_p = static_cast<float>(*defaults.min_p);
  if (defaults.repetition_penalty) {
    fields.repetition_penalty = static_cast<float>(*defaults.repetition_penalty);
  }
  return fields;
}

}  // namespace moebius::frontend
