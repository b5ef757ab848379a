// Configurations known by their hub names: the fields of config.json that sizes depend on. Private
// to plan/.
#pragma once

#include <span>

namespace moebius::plan {

struct KnownModel {
  const char* name;
  const char* config_json;
  const char* quantization_json;  // merged into it; "" where the checkpoint is not quantised
};
std::span<const KnownModel> KnownModelTable();

}  // namespace moebius::plan
