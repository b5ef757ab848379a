// --config FILE.yaml: the flags of a subcommand, written down. yaml-cpp stays inside
// config_file.cc.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::app {

// A key inside a map, with those around it: "load_balancer.num_slots".
struct ConfigKey {
  std::string where;  // as below
  std::string name;
};

// One key: `max-tokens: 5` is --max-tokens=5, a switch =true or =false, a list the flag once for
// each element, a map its JSON text; null: no arguments.
struct ConfigEntry {
  std::string where;  // "file:line", which begins errors
  std::string flag;   // "--max-tokens"
  std::vector<std::string> args;
  std::vector<ConfigKey> keys;  // of a map, inner ones too
};

// The file's keys in its order. Errors name file, line and key.
Result<std::vector<ConfigEntry>> ReadConfigFile(const std::string& path);

}  // namespace moebius::app
