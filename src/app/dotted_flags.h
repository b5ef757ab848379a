// vLLM's dotted flags: --eplb-config.window_size 1000 is --eplb-config '{"window_size": 1000}'.
// Plain function, any thread.
#pragma once

#include <string>
#include <vector>

namespace moebius::app {

// `args` with all dotted flags of one name joined to one JSON flag, where the first of them stood.
// A value that reads as JSON is that, any other a string; without a value it is true.
std::vector<std::string> JoinDottedFlags(const std::vector<std::string>& args);

}  // namespace moebius::app
