// --config FILE.yaml: the flags of a subcommand, written down. yaml-cpp stays inside
// config_file.cc.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::app {

// The file's keys as arguments, in its order: `max-tokens: 5` becomes --max-tokens 5, `true` the
// flag alone, `false` its --no- form, a list the flag once for each element, a map its JSON text.
// Errors name file, line and key.
Result<std::vector<std::string>> ReadConfigFile(const std::string& path);

}  // namespace moebius::app
