// Numbers of a config.json whatever its family: for models that our loader does not serve. Private
// to plan/.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "plan/model_shape.h"

namespace moebius::plan {

// Reads sizes by all spellings that published configurations use; what is not a size is ignored.
// `where` begins errors, which name the missing or wrong field.
Result<ModelShape> ReadConfigNumbers(const nlohmann::json& config, const std::string& where);

// Bytes of a parameter by quantization_config, whatever its method, into `shape`.
Status ReadQuantization(const nlohmann::json& config, const std::string& where, ModelShape& shape);

// Fills the counts that follow from moe_layers and windowed_layers, and clears widths of layers
// that the model does not have.
void FinishShape(ModelShape& shape);

}  // namespace moebius::plan
