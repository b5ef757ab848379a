#include "app/dotted_flags.h"

#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

namespace moebius::app {
namespace {

using nlohmann::json;

constexpr std::string_view kNameLetters = "abcdefghijklmnopqrstuvwxyz0123456789-";

// Where the dot of --name.key stands; npos: no such flag.
size_t DotOf(const std::string& arg) {
  if (arg.rfind("--", 0) != 0) return std::string::npos;
  const size_t dot = arg.find_first_not_of(kNameLetters, 2);
  return dot != std::string::npos && dot > 2 && arg[dot] == '.' ? dot : std::string::npos;
}

json JsonOf(const std::string& text) {
  json value = json::parse(text, nullptr, false);
  return value.is_discarded() ? json(text) : value;
}

void SetAt(json& object, std::string_view keys, json value) {
  const size_t dot = keys.find('.');
  if (!object.is_object()) object = json::object();
  json& entry = object[std::string(keys.substr(0, dot))];
  if (dot == std::string_view::npos) {
    entry = std::move(value);
  } else {
    SetAt(entry, keys.substr(dot + 1), std::move(value));
  }
}

}  // namespace

std::vector<std::string> JoinDottedFlags(const std::vector<std::string>& args) {
  struct Joined {
    size_t at;
    json object;
  };
  std::map<std::string, Joined> joined;
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    const size_t dot = DotOf(args[i]);
    if (dot == std::string::npos) {
      out.push_back(args[i]);
      continue;
    }
    const std::string name = args[i].substr(0, dot);
    const size_t equals = args[i].find('=');
    const std::string keys = args[i].substr(dot + 1, equals - dot - 1);
    json value = true;
    if (equals != std::string::npos) {
      value = JsonOf(args[i].substr(equals + 1));
    } else if (i + 1 < args.size() && args[i + 1].rfind('-', 0) != 0) {
      value = JsonOf(args[++i]);
    }
    const auto [entry, is_new] = joined.try_emplace(name, Joined{out.size(), json::object()});
    if (is_new) out.push_back(name);
    SetAt(entry->second.object, keys, std::move(value));
  }
  for (const auto& [name, flag] : joined) out[flag.at] = name + "=" + flag.object.dump();
  return out;
}

}  // namespace moebius::app
