#include "plan/balance/load_file.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/suggest.h"

namespace moebius::plan {
namespace {

using nlohmann::json;

Result<std::vector<double>> ParseLayer(const std::string& where, size_t layer, const json& list) {
  if (!list.is_array() || list.empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: layer {} is no list of tokens by expert", where,
                     layer);
  }
  std::vector<double> loads;
  for (const json& value : list) {
    const double load = value.is_number() ? value.get<double>() : -1;
    if (!(load >= 0) || !std::isfinite(load)) {
      return MakeError(ErrorCode::kCorrupt, "{}: layer {}: expert {} has {}, expected 0 or more",
                       where, layer, loads.size(),
                       value.dump(-1, ' ', true, json::error_handler_t::replace));
    }
    loads.push_back(load);
  }
  return loads;
}

}  // namespace

Result<LayerLoads> ParseLoads(const std::string& text, const std::string& where) {
  const json file = json::parse(text, nullptr, false);
  if (!file.is_object()) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: no JSON object, expected {{\"load\": [[per expert] per layer]}}", where);
  }
  const auto load = file.find("load");
  if (load == file.end() || !load->is_array() || load->empty()) {
    std::vector<std::string> keys;
    for (const auto& item : file.items()) keys.push_back(item.key());
    return MakeError(ErrorCode::kCorrupt, "{}: expected \"load\": [[per expert] per layer]{}",
                     where, load == file.end() ? DidYouMean("load", keys) : "");
  }
  LayerLoads layers;
  for (const json& list : *load) {
    MOEBIUS_ASSIGN(layers.emplace_back(), ParseLayer(where, layers.size(), list));
    if (layers.back().size() == layers.front().size()) continue;
    return MakeError(ErrorCode::kCorrupt, "{}: layer {} has {} experts, expected {} as layer 0",
                     where, layers.size() - 1, layers.back().size(), layers.front().size());
  }
  return layers;
}

Result<LayerLoads> ReadLoadFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return MakeError(ErrorCode::kNotFound,
                     "{}: cannot be read, expected JSON: {{\"load\": [[per expert] per layer]}}",
                     path);
  }
  return ParseLoads(text.str(), path);
}

}  // namespace moebius::plan
