// vLLM's --eplb-config: how experts move while requests run. Plain functions, any thread; JSON
// stays in the .cc file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/balance/options.h"

namespace moebius::app {

struct EplbConfig {
  std::optional<int64_t> num_redundant_experts;
  std::optional<int> layer_updates_per_iter;
  moe::OnlineBalance online;  // but for layer_updates_per_iter
  bool is_given = false;
  std::vector<std::string> ignored;  // keys without a meaning here, and why
};

// Of a JSON object's text, on top of `before`. kInvalidArgument names the key, what was found and
// what is expected, or the nearest key that there is.
Result<EplbConfig> ParseEplbConfig(const std::string& text, const EplbConfig& before = {});

}  // namespace moebius::app
