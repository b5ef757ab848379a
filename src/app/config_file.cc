#include "app/config_file.h"

#include <yaml-cpp/yaml.h>

#include <nlohmann/json.hpp>

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

Status AddEntry(const std::string& where, const YAML::Node& key, const YAML::Node& value,
                std::vector<std::string>& args) {
  if (!key.IsScalar() || key.Scalar().empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: a key is no plain word", where);
  }
  std::string flag = "--" + key.Scalar();
  for (char& c : flag) c = c == '_' ? '-' : c;
  if (value.IsNull()) return {};
  // Joined by '=', a word is never taken for the next argument, and a switch reads true and false.
  if (value.IsScalar()) {
    args.push_back(flag + "=" + value.Scalar());
    return {};
  }
  if (value.IsMap()) {
    args.push_back(flag + "=" + ToJson(value).dump());
    return {};
  }
  for (const YAML::Node& item : value) {
    if (!item.IsScalar())
      return MakeError(ErrorCode::kCorrupt, "{}: {}: expected a list of plain values", where,
                       key.Scalar());
    args.push_back(flag + "=" + item.Scalar());
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> ReadConfigFile(const std::string& path) {
  std::vector<std::string> args;
  try {
    const YAML::Node file = YAML::LoadFile(path);
    if (file.IsNull()) return args;
    if (!file.IsMap())
      return MakeError(ErrorCode::kCorrupt, "{}: expected a map of flags, such as max-tokens: 5",
                       path);
    for (const auto& entry : file) {
      const std::string where = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
      MOEBIUS_TRY(AddEntry(where, entry.first, entry.second, args));
    }
  } catch (const YAML::BadFile&) {
    return MakeError(ErrorCode::kNotFound, "--config: {} cannot be read", path);
  } catch (const YAML::Exception& error) {
    return MakeError(ErrorCode::kCorrupt, "{}:{}: {}", path, error.mark.line + 1, error.msg);
  }
  return args;
}

}  // namespace moebius::app
