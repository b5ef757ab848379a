#include "app/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace moebius::app {
namespace {

// YAML's scalars have no type of their own: what reads as JSON (a number, true, null) is that, else
// a string.
nlohmann::json ToJson(const YAML::Node& node) {
  if (node.IsMap()) {
    nlohmann::json object = nlohmann::json::object();
    for (const auto& entry : node) object[entry.first.Scalar()] = ToJson(entry.second);
    return object;
  }
  if (node.IsSequence()) {
    nlohmann::json list = nlohmann::json::array();
    for (const YAML::Node& item : node) list.push_back(ToJson(item));
    return list;
  }
  if (node.IsNull()) return nullptr;
  const bool quoted = node.Tag() == "!";
  nlohmann::json value =
      quoted ? nlohmann::json() : nlohmann::json::parse(node.Scalar(), nullptr, false);
  return quoted || value.is_discarded() || value.is_structured() ? nlohmann::json(node.Scalar())
                                                                 : value;
}

Error Twice(const std::string& where, const std::string& key) {
  return {ErrorCode::kCorrupt, fmt::format("{}: {} stands there twice, expected once", where, key)};
}

Status ListKeys(const std::string& path, const std::string& before, const YAML::Node& map,
                std::vector<ConfigKey>* keys) {
  std::set<std::string> seen;
  for (const auto& entry : map) {
    const std::string name = before + entry.first.Scalar();
    keys->push_back({fmt::format("{}:{}", path, entry.first.Mark().line + 1), name});
    if (!seen.insert(name).second) return tl::unexpected(Twice(keys->back().where, name));
    if (entry.second.IsMap()) MOEBIUS_TRY(ListKeys(path, name + ".", entry.second, keys));
  }
  return {};
}

Result<ConfigEntry> ReadEntry(const std::string& path, const YAML::Node& key,
                              const YAML::Node& value) {
  ConfigEntry entry;
  entry.where = fmt::format("{}:{}", path, key.Mark().line + 1);
  if (!key.IsScalar() || key.Scalar().empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: a key is no plain word", entry.where);
  }
  entry.flag = "--" + key.Scalar();
  // Behind a dot stands a field's name, as it is.
  for (size_t i = 0; i < std::min(entry.flag.find('.'), entry.flag.size()); ++i) {
    if (entry.flag[i] == '_') entry.flag[i] = '-';
  }
  if (value.IsNull()) return entry;
  // Joined by '=', a word is never taken for the next argument, and a switch reads true and false.
  if (value.IsScalar()) {
    entry.args.push_back(entry.flag + "=" + value.Scalar());
    return entry;
  }
  if (value.IsMap()) {
    entry.args.push_back(entry.flag + "=" + ToJson(value).dump());
    MOEBIUS_TRY(ListKeys(path, "", value, &entry.keys));
    return entry;
  }
  for (const YAML::Node& item : value) {
    if (!item.IsScalar()) {
      return MakeError(ErrorCode::kCorrupt, "{}: {}: expected a list of plain values", entry.where,
                       key.Scalar());
    }
    entry.args.push_back(entry.flag + "=" + item.Scalar());
  }
  return entry;
}

}  // namespace

Result<std::vector<ConfigEntry>> ReadConfigFile(const std::string& path) {
  std::vector<ConfigEntry> entries;
  try {
    const YAML::Node file = YAML::LoadFile(path);
    if (file.IsNull()) return entries;
    if (!file.IsMap()) {
      return MakeError(ErrorCode::kCorrupt, "{}: expected a map of flags, such as max-tokens: 5",
                       path);
    }
    std::set<std::string> seen;
    for (const auto& pair : file) {
      MOEBIUS_ASSIGN(ConfigEntry entry, ReadEntry(path, pair.first, pair.second));
      if (!seen.insert(entry.flag).second) {
        return tl::unexpected(Twice(entry.where, pair.first.Scalar()));
      }
      entries.push_back(std::move(entry));
    }
  } catch (const YAML::BadFile&) {
    return MakeError(ErrorCode::kNotFound, "--config: {} cannot be read", path);
  } catch (const YAML::Exception& error) {
    return MakeError(ErrorCode::kCorrupt, "{}:{}: {}", path, error.mark.line + 1, error.msg);
  }
  return entries;
}

}  // namespace moebius::app
