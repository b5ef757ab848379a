#include "app/json_text.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace moebius::app {

using nlohmann::json;

Result<json> ParseJsonText(const std::string& name, const std::string& text) {
  std::vector<std::set<std::string>> maps;  // the keys of those around
  std::string key;                          // the last one
  bool is_twice = false;
  const auto look = [&](int /*depth*/, json::parse_event_t event, json& value) {
    if (is_twice) return true;
    if (event == json::parse_event_t::object_start) maps.emplace_back();
    if (event == json::parse_event_t::object_end) maps.pop_back();
    if (event != json::parse_event_t::key) return true;
    key = value.get<std::string>();
    is_twice = !maps.back().insert(key).second;
    return true;
  };
  json parsed(json::value_t::discarded);
  try {
    parsed = json::parse(text, look);
  } catch (const json::out_of_range& error) {
    // "[json.exception.out_of_range.406] number overflow parsing '1e400'"
    const std::string what = error.what();
    return MakeError(ErrorCode::kInvalidArgument, "{}: {}: {}", name, key,
                     what.substr(what.find(' ') + 1));
  } catch (const json::exception&) {
    return parsed;
  }
  if (!is_twice) return parsed;
  return MakeError(ErrorCode::kInvalidArgument, "{}: {} stands there twice, expected once", name,
                   key);
}

}  // namespace moebius::app
