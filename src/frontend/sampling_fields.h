// Sampling wishes where each may be absent: what generation_config.json recommends, what flags say,
// what one request says. Later ones win field by field. Plain values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "frontend/request.h"
#include "model/model_config.h"

namespace moebius::frontend {

// Names and meanings are those of vLLM's SamplingParams.
struct SamplingFields {
  std::optional<int32_t> max_tokens;
  std::optional<int32_t> min_tokens;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;  // any int64 by its bits; -1 in JSON: none, as in vLLM
  std::optional<std::vector<std::string>> stop;
  std::optional<std::vector<TokenId>> stop_token_ids;
  std::optional<bool> ignore_eos;
  std::optional<int32_t> logprobs;
  std::optional<int32_t> prompt_logprobs;
  std::optional<std::vector<std::pair<TokenId, float>>> logit_bias;  // -100 ... 100
  std::optional<std::vector<TokenId>> allowed_token_ids;
  std::optional<std::vector<std::string>> bad_words;
  std::optional<bool> include_stop_str_in_output;
  std::optional<bool> skip_special_tokens;
  std::optional<std::string> cache_salt;
  std::optional<int32_t> priority;

  // Takes every field that `over` has.
  void Override(const SamplingFields& over);

  // Writes the fields that are there into a request.
  void Apply(GenerateRequest& request) const;
};

// The fields of a JSON object that carry these names (`stop`: a string or a list; `logit_bias`:
// {"token id": number}); others are not looked at. A field of the wrong type: kInvalidArgument,
// `where` and its name. Whether a value can be honoured is the engine's to judge.
Result<SamplingFields> ParseSamplingFields(const nlohmann::json& object, const std::string& where);

// The names that ParseSamplingFields knows.
const std::vector<std::string>& SamplingFieldNames();

// What a model's generation_config.json recommends.
SamplingFields FieldsOf(const model::GenerationDefaults& defaults);

}  // namespace moebius::frontend
