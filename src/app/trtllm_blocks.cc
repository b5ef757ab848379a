#include "app/trtllm_blocks.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "app/json_text.h"
#include "app/numbers.h"
#include "base/suggest.h"

namespace moebius::app {
namespace {

using nlohmann::json;

const std::vector<std::string> kMoeKeys = {"backend", "max_num_tokens", "load_balancer",
                                           "disable_finalize_fusion",
                                           "use_low_precision_moe_combine"};
const std::vector<std::string> kBalancerKeys = {"num_slots", "initial_global_assignments",
                                                "layer_updates_per_iter", "ep_size"};
const std::vector<std::string> kMoeBackends = {"AUTO",    "WIDEEP",   "CUTLASS", "TRTLLM",
                                               "CUTEDSL", "DEEPGEMM", "TRITON",  "VANILLA"};
const std::vector<std::string> kKvKeys = {"enable_block_reuse",
                                          "free_gpu_memory_fraction",
                                          "tokens_per_block",
                                          "dtype",
                                          "max_tokens",
                                          "max_attention_window",
                                          "sink_token_length",
                                          "host_cache_size",
                                          "onboard_blocks",
                                          "cross_kv_cache_fraction",
                                          "secondary_offload_min_priority",
                                          "event_buffer_max_size",
                                          "attention_dp_events_gather_period_ms",
                                          "enable_partial_reuse",
                                          "copy_on_partial_reuse",
                                          "use_uvm",
                                          "max_gpu_total_bytes",
                                          "mamba_ssm_cache_dtype"};

bool Has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Status CheckKey(const std::string& block, const std::vector<std::string>& known,
                const std::string& key) {
  if (Has(known, key)) return {};
  return MakeError(ErrorCode::kInvalidArgument, "unknown key {}.{}{}", block, key,
                   DidYouMean(key, known));
}

Result<json> ParseBlock(const std::string& block, const std::string& text,
                        const std::vector<std::string>& known) {
  MOEBIUS_ASSIGN(json value, ParseJsonText(block, text));
  if (!value.is_object()) {
    return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected a map of its keys", block,
                     text);
  }
  for (const auto& [key, unused] : value.items()) MOEBIUS_TRY(CheckKey(block, known, key));
  return value;
}

Error Wrong(const std::string& key, const json& value, const std::string& expected) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} is {}, expected {}", key, value.dump(), expected)};
}

Result<int64_t> WholeOf(const std::string& key, const json& value, int64_t low, int64_t high) {
  if (value.is_number_integer() && value >= low && value <= high) return value.get<int64_t>();
  return tl::unexpected(Wrong(key, value, fmt::format("a whole number from {} to {}", low, high)));
}

// Python's spelling, too.
Result<bool> BoolOf(const std::string& key, const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value == "True") return true;
  if (value == "False") return false;
  return tl::unexpected(Wrong(key, value, "true or false"));
}

// As --kv-cache-dtype has it.
Result<std::string> DTypeOf(const std::string& key, const json& value) {
  if (value == "auto" || value == "bfloat16" || value == "fp8") return value.get<std::string>();
  if (value == "bf16") return std::string("bfloat16");
  return tl::unexpected(Wrong(key, value, "auto, bfloat16 (bf16) or fp8"));
}

Status ReadBalancer(const json& value, MoeConfig* config) {
  constexpr const char* kKey = "moe_config.load_balancer";
  if (value.is_null()) return {};
  config->has_load_balancer = true;
  if (value.is_string()) {
    config->load_balancer_file = value.get<std::string>();
    return {};
  }
  if (!value.is_object()) {
    return tl::unexpected(Wrong(kKey, value, "a file's name or a map such as {num_slots: 288}"));
  }
  for (const auto& [key, unused] : value.items()) MOEBIUS_TRY(CheckKey(kKey, kBalancerKeys, key));
  MOEBIUS_ASSIGN(const plan::PlacementFile placement,
                 plan::ParsePlacement(value.dump(), kKey, plan::kUnknownExperts));
  config->balance = BalanceOf(placement);
  return {};
}

}  // namespace

moe::BalanceOptions BalanceOf(const plan::PlacementFile& placement) {
  moe::BalanceOptions balance;
  balance.num_slots = placement.num_slots;
  balance.ep_size = placement.ep_size;
  balance.assignments.insert(placement.assignments.begin(), placement.assignments.end());
  balance.names.insert(placement.names.begin(), placement.names.end());
  balance.online.layer_updates_per_iter = placement.layer_updates_per_iter;
  return balance;
}

Result<MoeConfig> ParseMoeConfig(const std::string& text) {
  MOEBIUS_ASSIGN(const json block, ParseBlock("moe_config", text, kMoeKeys));
  MoeConfig config;
  for (const auto& [key, value] : block.items()) {
    if (key == "backend") {
      if (!value.is_string() || !Has(kMoeBackends, value.get<std::string>())) {
        std::string known;
        for (const std::string& name : kMoeBackends) known += (known.empty() ? "" : ", ") + name;
        return tl::unexpected(Wrong("moe_config.backend", value, "one of " + known));
      }
      config.backend = value.get<std::string>();
    } else if (key == "max_num_tokens") {
      if (value.is_null()) continue;
      MOEBIUS_ASSIGN(config.max_num_tokens,
                     WholeOf("moe_config.max_num_tokens", value, 1, kMostTokens));
    } else if (key == "load_balancer") {
      MOEBIUS_TRY(ReadBalancer(value, &config));
    } else {
      config.ignored.push_back(key);
    }
  }
  return config;
}

Result<KvCacheConfig> ParseKvCacheConfig(const std::string& text) {
  MOEBIUS_ASSIGN(const json block, ParseBlock("kv_cache_config", text, kKvKeys));
  KvCacheConfig config;
  for (const auto& [key, value] : block.items()) {
    const std::string name = "kv_cache_config." + key;
    if (key == "enable_block_reuse") {
      MOEBIUS_ASSIGN(config.enable_block_reuse, BoolOf(name, value));
    } else if (key == "free_gpu_memory_fraction") {
      if (!value.is_number() || value <= 0 || value > 1) {
        return tl::unexpected(Wrong(name, value, "a number above 0 and at most 1"));
      }
      config.free_gpu_memory_fraction = value.get<double>();
    } else if (key == "tokens_per_block") {
      MOEBIUS_ASSIGN(config.tokens_per_block, WholeOf(name, value, 1, kMostTokens));
    } else if (key == "dtype") {
      MOEBIUS_ASSIGN(config.dtype, DTypeOf(name, value));
    } else {
      config.ignored.push_back(key);
    }
  }
  return config;
}

Status CheckBlockKey(const std::string& flag, const std::string& key) {
  if (flag == "--kv-cache-config") return CheckKey("kv_cache_config", kKvKeys, key);
  if (flag != "--moe-config") return {};
  constexpr std::string_view kInner = "load_balancer.";
  if (!key.starts_with(kInner)) return CheckKey("moe_config", kMoeKeys, key);
  const std::string inner = key.substr(kInner.size());
  if (inner.starts_with("initial_global_assignments.")) return {};  // layers
  return CheckKey("moe_config.load_balancer", kBalancerKeys, inner);
}

}  // namespace moebius::app
