#include "bench/load/sweep/plan_entries.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "base/suggest.h"

namespace moebius::load {
namespace {

// `more` instead of what `flags` has under the same names.
void Merge(const FlagList& more, FlagList& flags) {
  for (const auto& replacing : more) {
    std::erase_if(flags, [&](const auto& flag) { return flag.first == replacing.first; });
  }
  flags.insert(flags.end(), more.begin(), more.end());
}

struct Switch {
  std::string name;
  FlagList on;
  FlagList off;
  std::string not_yet;
};

}  // namespace

std::string PlanReader::Where(const YAML::Node& node) const {
  return fmt::format("{}:{}", path_, node.Mark().line + 1);
}

Status PlanReader::CheckKeys(const YAML::Node& node, const std::string& what,
                             const std::vector<std::string>& keys) const {
  if (!node.IsMap()) return Fail(node, "expected {} to be a map", what);
  for (const auto& entry : node) {
    const std::string& key = entry.first.Scalar();
    if (std::ranges::count(keys, key) > 0) continue;
    return Fail(entry.first, "unknown key '{}' of {}{}", key, what, DidYouMean(key, keys));
  }
  return {};
}

Result<std::string> PlanReader::Text(const YAML::Node& map, const char* key) const {
  if (map[key] && map[key].IsScalar()) return map[key].Scalar();
  return Fail(map[key] ? map[key] : map, "expected a text '{}'", key);
}

Result<std::string> PlanReader::Text(const YAML::Node& map, const char* key,
                                     const char* otherwise) const {
  if (!map[key]) return std::string(otherwise);
  return Text(map, key);
}

Result<double> PlanReader::Number(const YAML::Node& map, const char* key, double otherwise) const {
  if (!map[key]) return otherwise;
  double value = 0;
  if (map[key].IsScalar() && YAML::convert<double>::decode(map[key], value) && value > 0) {
    return value;
  }
  return Fail(map[key], "{}: expected a number above 0", key);
}

Result<double> PlanReader::Share(const YAML::Node& map, const char* key, double otherwise) const {
  if (!map[key]) return otherwise;
  double value = 0;
  if (map[key].IsScalar() && YAML::convert<double>::decode(map[key], value) && value >= 0 &&
      value <= 1) {
    return value;
  }
  return Fail(map[key], "{}: expected a share from 0 to 1", key);
}

Status PlanReader::SetFlag(const YAML::Node& key, const YAML::Node& value, FlagList& flags) const {
  std::string name = key.Scalar();
  std::replace(name.begin(), name.end(), '_', '-');
  if (name.starts_with('-')) return Fail(key, "flag '{}': expected it without dashes", name);
  if (value.IsSequence()) {
    for (const YAML::Node& item : value) {
      if (!item.IsScalar()) return Fail(item, "{}: expected a list of plain values", name);
      flags.emplace_back(name, item.Scalar());
    }
    return {};
  }
  if (!value.IsScalar() && !value.IsNull()) return Fail(value, "{}: expected a plain value", name);
  const std::string text = value.IsNull() ? "true" : value.Scalar();
  if (text == "false") return {};
  flags.emplace_back(name, text == "true" ? "" : text);
  return {};
}

Result<FlagList> PlanReader::Flags(const YAML::Node& node) const {
  FlagList flags;
  if (!node) return flags;
  if (!node.IsMap()) return Fail(node, "flags: expected a map of flags and values");
  for (const auto& entry : node) MOEBIUS_TRY(SetFlag(entry.first, entry.second, flags));
  return flags;
}

Result<std::vector<std::string>> PlanReader::Words(const YAML::Node& node, const char* what) const {
  std::vector<std::string> words;
  if (!node) return words;
  if (node.IsScalar()) {
    std::istringstream stream(node.Scalar());
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
  }
  if (!node.IsSequence()) return Fail(node, "{}: expected words or a list of them", what);
  for (const YAML::Node& item : node) {
    if (!item.IsScalar()) return Fail(item, "{}: expected a list of words", what);
    words.push_back(item.Scalar());
  }
  return words;
}

// Every combination: {"a=1 b=2", flags}. Without a matrix one, without a name.
Result<std::vector<std::pair<std::string, FlagList>>> PlanReader::Matrix(
    const YAML::Node& node) const {
  std::vector<std::pair<std::string, FlagList>> all = {{"", {}}};
  if (!node) return all;
  if (!node.IsMap()) return Fail(node, "matrix: expected a map of flags and lists of values");
  for (const auto& entry : node) {
    if (!entry.second.IsSequence() || entry.second.size() == 0) {
      return Fail(entry.first, "matrix: {}: expected a list of values", entry.first.Scalar());
    }
    std::vector<std::pair<std::string, FlagList>> more;
    for (const auto& [name, flags] : all) {
      for (const YAML::Node& value : entry.second) {
        FlagList longer = flags;
        MOEBIUS_TRY(SetFlag(entry.first, value, longer));
        more.emplace_back(fmt::format("{}{}{}={}", name, name.empty() ? "" : " ",
                                      entry.first.Scalar(), value.Scalar()),
                          std::move(longer));
      }
    }
    all = std::move(more);
  }
  return all;
}

Result<Defaults> PlanReader::ReadDefaults(const YAML::Node& node) const {
  Defaults defaults;
  if (!node) return defaults;
  MOEBIUS_TRY(CheckKeys(node, "defaults", {"command", "server-flags", "load-flags", "env"}));
  MOEBIUS_ASSIGN(defaults.command, Words(node["command"], "command"));
  MOEBIUS_ASSIGN(defaults.server_flags, Flags(node["server-flags"]));
  MOEBIUS_ASSIGN(defaults.load_flags, Flags(node["load-flags"]));
  if (!node["env"]) return defaults;
  if (!node["env"].IsMap()) return Fail(node["env"], "env: expected a map");
  for (const auto& entry : node["env"]) {
    defaults.env.emplace_back(entry.first.Scalar(), entry.second.Scalar());
  }
  return defaults;
}

Status PlanReader::AddServers(const YAML::Node& node, const Defaults& defaults,
                              std::vector<ServerSpec>& servers) const {
  MOEBIUS_TRY(CheckKeys(
      node, "a server",
      {"name", "command", "flags", "env", "url", "loads", "not-yet", "matrix", "ablate"}));
  ServerSpec base;
  base.where = Where(node);
  MOEBIUS_ASSIGN(base.name, Text(node, "name"));
  MOEBIUS_ASSIGN(base.url, Text(node, "url", ""));
  MOEBIUS_ASSIGN(base.not_yet, Text(node, "not-yet", ""));
  MOEBIUS_ASSIGN(base.loads, Words(node["loads"], "loads"));
  MOEBIUS_ASSIGN(base.command, Words(node["command"], "command"));
  MOEBIUS_ASSIGN(const FlagList own, Flags(node["flags"]));
  if (base.url.empty()) {
    // Flags of the default command are not those of another one.
    if (base.command.empty()) {
      base.command = defaults.command;
      base.flags = defaults.server_flags;
    }
    Merge(own, base.flags);
    base.env = defaults.env;
    if (base.command.empty()) return Fail(node, "'{}' has neither command nor url", base.name);
  } else if (!base.command.empty() || !own.empty() || node["env"]) {
    return Fail(node, "'{}' runs already (url): it takes no command, flags or env", base.name);
  }
  if (node["env"]) {
    if (!node["env"].IsMap()) return Fail(node["env"], "env: expected a map");
    for (const auto& entry : node["env"]) {
      base.env.emplace_back(entry.first.Scalar(), entry.second.Scalar());
    }
  }
  if (node["ablate"]) {
    if (node["matrix"]) return Fail(node, "'{}' has both matrix and ablate", base.name);
    return Ablate(node["ablate"], base, servers);
  }
  MOEBIUS_ASSIGN(const auto combinations, Matrix(node["matrix"]));
  for (const auto& [name, flags] : combinations) {
    ServerSpec server = base;
    if (!name.empty()) server.name += " " + name;
    Merge(flags, server.flags);
    servers.push_back(std::move(server));
  }
  return {};
}

Status PlanReader::Ablate(const YAML::Node& node, const ServerSpec& base,
                          std::vector<ServerSpec>& servers) const {
  if (!node.IsMap()) return Fail(node, "ablate: expected a map of switches");
  std::vector<Switch> switches;
  for (const auto& entry : node) {
    Switch one;
    one.name = entry.first.Scalar();
    MOEBIUS_TRY(CheckKeys(entry.second, "switch " + one.name, {"on", "off", "not-yet"}));
    MOEBIUS_ASSIGN(one.on, Flags(entry.second["on"]));
    MOEBIUS_ASSIGN(one.off, Flags(entry.second["off"]));
    MOEBIUS_ASSIGN(one.not_yet, Text(entry.second, "not-yet", ""));
    switches.push_back(std::move(one));
  }
  // One that there is not yet stays out of everybody else's cells, and has its own two marked.
  const auto add = [&](const std::string& name, const Switch* odd, bool others_on) {
    ServerSpec server = base;
    server.name += " " + name;
    if (odd != nullptr && !odd->not_yet.empty()) server.not_yet = odd->not_yet;
    for (const Switch& one : switches) {
      if (!one.not_yet.empty()) continue;
      const bool on = &one == odd ? !others_on : others_on;
      Merge(on ? one.on : one.off, server.flags);
    }
    servers.push_back(std::move(server));
  };
  add("all-on", nullptr, true);
  add("all-off", nullptr, false);
  for (const Switch& one : switches) {
    add("only-" + one.name, &one, false);
    add("without-" + one.name, &one, true);
  }
  return {};
}

Status PlanReader::AddLoads(const YAML::Node& node, const Defaults& defaults,
                            std::vector<LoadSpec>& loads) const {
  MOEBIUS_TRY(CheckKeys(node, "a load", {"name", "flags", "not-yet", "matrix"}));
  LoadSpec base;
  base.where = Where(node);
  MOEBIUS_ASSIGN(base.name, Text(node, "name"));
  MOEBIUS_ASSIGN(base.not_yet, Text(node, "not-yet", ""));
  base.flags = defaults.load_flags;
  MOEBIUS_ASSIGN(const FlagList own, Flags(node["flags"]));
  Merge(own, base.flags);
  MOEBIUS_ASSIGN(const auto combinations, Matrix(node["matrix"]));
  for (const auto& [name, flags] : combinations) {
    LoadSpec load = base;
    if (!name.empty()) load.name += " " + name;
    Merge(flags, load.flags);
    loads.push_back(std::move(load));
  }
  return {};
}

}  // namespace moebius::load
