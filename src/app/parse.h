// The command line: flags to plain structs. CLI11 stays inside parse.cc.
#pragma once

#include <string>
#include <vector>

#include "app/options.h"
#include "base/result.h"

namespace moebius::app {

// `args` without the program's name. Errors are for the user: they name the flag, and for an
// unknown one the nearest. `environment`: "NAME=value"; what recipes of vLLM set there counts for
// serve, API keys for it and its clients.
Result<CommandLine> ParseCommandLine(const std::vector<std::string>& args,
                                     const std::vector<std::string>& environment = {});

}  // namespace moebius::app
