#include "app/eplb_config.h"

#include <nlohmann/json.hpp>

#include "app/json_text.h"
#include "base/suggest.h"
#include "layout/parallel_layout.h"

namespace moebius::app {
namespace {

using nlohmann::json;

constexpr int64_t kMost = int64_t{1} << 40;

struct Ignored {
  const char* name;
  const char* why;
};
constexpr Ignored kIgnored[] = {
    {"window_size", "counts decay instead of ending with a window"},
    {"use_async", "experts always move beside the steps"},
    {"log_balancedness", "/metrics and --step-log always have it"},
    {"log_balancedness_interval", "/metrics and --step-log always have it"},
    {"policy", "placements are improved, and only what pays is moved"},
    {"communicator", "weights travel through the memory that ranks share"}};
constexpr const char* kTaken[] = {"num_redundant_experts",
                                  "step_interval",
                                  "min_tokens_per_expert",
                                  "layer_updates_per_iter",
                                  "min_gain",
                                  "flops_per_byte",
                                  "num_staging_slots",
                                  "bytes_per_second",
                                  "host_pool",
                                  "random_moves"};

Error BadValue(const std::string& key, const json& value, const std::string& expected) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("--eplb-config: {} is {}, expected {}", key, value.dump(), expected)};
}

Result<int64_t> Number(const std::string& key, const json& value, int64_t low, int64_t high) {
  if (value.is_number_integer() && value >= low && value <= high) return value.get<int64_t>();
  return tl::unexpected(
      BadValue(key, value, fmt::format("a whole number from {} to {}", low, high)));
}

Status Real(const std::string& key, const json& value, double high, double* target) {
  if (!value.is_number() || value < 0 || value > high) {
    return tl::unexpected(BadValue(key, value, fmt::format("0 to {}", high)));
  }
  *target = value.get<double>();
  return {};
}

Status TakeKey(const std::string& key, const json& value, EplbConfig& config) {
  moe::OnlineBalance& online = config.online;
  const auto number = [&](auto* target, int64_t low, int64_t high) -> Status {
    MOEBIUS_ASSIGN(const int64_t read, Number(key, value, low, high));
    *target = static_cast<std::remove_reference_t<decltype(*target)>>(read);
    return {};
  };
  if (key == "num_redundant_experts") {
    MOEBIUS_ASSIGN(config.num_redundant_experts,
                   Number(key, value, 0, layout::kMaxRedundantExperts));
    return {};
  }
  if (key == "min_tokens_per_expert") return number(&online.min_tokens_per_expert, 1, kMost);
  if (key == "step_interval") return number(&online.step_interval, 1, kMost);
  if (key == "layer_updates_per_iter") {
    MOEBIUS_ASSIGN(const int64_t updates, Number(key, value, 0, 10000));
    config.layer_updates_per_iter = static_cast<int>(updates);
    return {};
  }
  if (key == "num_staging_slots") return number(&online.num_staging, 1, 4096);
  if (key == "bytes_per_second") return number(&online.bytes_per_second, 0, kMost);
  if (key == "min_gain") return Real(key, value, 1e3, &online.min_gain);
  if (key == "flops_per_byte") return Real(key, value, 1e6, &online.flops_per_byte);
  if (key == "host_pool") {
    if (!value.is_boolean()) return tl::unexpected(BadValue(key, value, "true or false"));
    online.host_pool = value.get<bool>();
    return {};
  }
  if (key == "random_moves") {  // for tests: the seed of swaps whatever the load
    online.is_random = true;
    return number(&online.seed, 0, UINT32_MAX);
  }
  std::vector<std::string> names(std::begin(kTaken), std::end(kTaken));
  for (const Ignored& ignored : kIgnored) {
    if (key == ignored.name) {
      config.ignored.push_back(fmt::format("--eplb-config: {} is ignored: {}", key, ignored.why));
      return {};
    }
    names.emplace_back(ignored.name);
  }
  return MakeError(ErrorCode::kInvalidArgument, "--eplb-config: unknown key {}{}", key,
                   DidYouMean(key, names));
}

}  // namespace

Result<EplbConfig> ParseEplbConfig(const std::string& text, const EplbConfig& before) {
  MOEBIUS_ASSIGN(const json object, ParseJsonText("--eplb-config", text));
  if (!object.is_object()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--eplb-config is '{}', expected a JSON object such as "
                     "{{\"num_redundant_experts\": 32}}",
                     text);
  }
  EplbConfig config = before;
  config.is_given = true;
  for (const auto& [key, value] : object.items()) MOEBIUS_TRY(TakeKey(key, value, config));
  return config;
}

}  // namespace moebius::app
