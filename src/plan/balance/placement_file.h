// Which expert each slot of each layer holds, as TensorRT-LLM's EPLB configuration says it in YAML:
//
//   num_slots: 8
//   initial_global_assignments:
//     1: [4, 2, 5, 1, 0, 0, 3, 5]
//   layer_updates_per_iter: 0
//
// Keys are the model's layer indices; entry j is the expert of global slot j. JSON is YAML, so the
// same reader takes what stands inline in flags. Plain functions, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::plan {

struct PlacementFile {
  int num_slots = 0;  // 0: no balancing
  int ep_size = 0;    // ranks; 0: the file does not say
  std::map<int, std::vector<int32_t>> assignments;
  int layer_updates_per_iter = 0;    // 0: as it is, for good
  std::map<int, std::string> names;  // of the layers of assignments: how errors call them
};

// The experts of a model that is not there yet: who has it checks them.
constexpr int kUnknownExperts = -1;

// Every expert must have a slot in each layer. num_experts: the model's; 0: the highest that the
// file names and one. `where` begins every error, which names key, layer and slot, what was found
// and what was expected, and the line where the text has several.
Result<PlacementFile> ParsePlacement(const std::string& text, const std::string& where,
                                     int num_experts = 0);
// kNotFound: there is no such file.
Result<PlacementFile> ReadPlacementFile(const std::string& path, int num_experts = 0);

// The text that ParsePlacement reads, laid out as TensorRT-LLM's: a line a layer.
std::string PlacementYaml(const PlacementFile& placement);

}  // namespace moebius::plan
