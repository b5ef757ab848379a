// Loads of experts in a JSON file: {"load": [[tokens of each expert] for each layer]}. Plain
// functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::plan {

using LayerLoads = std::vector<std::vector<double>>;  // [layer][expert]

// One layer or more, of one expert or more, as many in each. `where` begins every error.
Result<LayerLoads> ParseLoads(const std::string& text, const std::string& where);
Result<LayerLoads> ReadLoadFile(const std::string& path);

}  // namespace moebius::plan
