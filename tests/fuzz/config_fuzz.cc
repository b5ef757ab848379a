// config.json, generation_config.json and overrides of any bytes, one line each: an error or a
// configuration that holds what the rest of the code relies on.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t first = text.find('\n');
  const size_t second = first == std::string::npos ? first : text.find('\n', first + 1);
  const std::string config_json = text.substr(0, first);
  const std::string generation_json =
      first == std::string::npos ? "" : text.substr(first + 1, second - first - 1);
  const std::string overrides = second == std::string::npos ? "" : text.substr(second + 1);
  const auto config =
      moebius::model::ParseModelConfig(config_json, generation_json, overrides, "fuzz");
  if (!config) return 0;
  const auto& c = *config;
  if (c.vocab_size <= 0 || c.hidden_size <= 0 || c.max_position <= 0) abort();
  if (static_cast<int64_t>(c.layers.size()) != c.num_layers) abort();
  if (c.attention.rope_dim() <= 0 || c.attention.rope_dim() % 2 != 0) abort();
  if (c.moe.num_experts > 0 && (c.moe.top_k < 1 || c.moe.top_k > c.moe.num_experts)) abort();
  if (c.moe.num_groups < 1 || c.moe.num_top_groups > c.moe.num_groups) abort();
  for (const moebius::TokenId id : c.eos_token_ids) {
    if (id < 0 || id >= c.vocab_size) abort();
  }
  return 0;
}
