// The environment variables of vLLM's recipes, read by `moebius serve`: two of them are flags here,
// the others get one line each that says what they mean. Plain function, any thread.
#pragma once

#include <string>
#include <vector>

namespace moebius::app {

struct VllmEnvironment {
  std::vector<std::string> args;      // flags, to stand before those of files and command line
  std::vector<std::string> api_keys;  // unless a flag gives some
  std::vector<std::string> notes;
};

// `environment`: "NAME=value", as the system has it; an empty value counts as unset.
VllmEnvironment ReadVllmEnvironment(const std::vector<std::string>& environment);

}  // namespace moebius::app
