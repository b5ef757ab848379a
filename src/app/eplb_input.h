// What the verbs of `moebius eplb` begin with: recorded loads, and the slots, ranks and nodes that
// they are planned for. Used by the main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/balance/load_trace.h"
#include "moe/balance/policy.h"
#include "plan/balance/placement_file.h"

namespace CLI {
class App;
}

namespace moebius::app {

struct EplbInput {
  std::string statistics;  // folder
  std::string load;        // JSON file, instead
  std::optional<int64_t> iter_start;
  std::optional<int64_t> iter_stop;
  std::string counted_slots;  // placement that was in use while slots were counted; empty: experts
  int first_layer = 0;        // of `load`: the model's index of its first
};

void AddInputFlags(CLI::App* app, EplbInput& input);
// kInvalidArgument: not exactly one of folder and file.
Status CheckInput(const EplbInput& input);

// A load file is a trace of one window.
struct EplbLoads {
  moe::LoadTrace trace;
  std::vector<int> layers;  // the model's indices
  int64_t first_iteration = 0;

  // Of all windows, by expert.
  std::vector<double> Sum(int layer) const;
};
Result<EplbLoads> ReadLoads(const EplbInput& input);

// Slots and ranks as flags say them; what is not said comes from a placement file or the loads.
struct EplbShapeFlags {
  std::optional<int> num_slots = std::nullopt;
  std::optional<int> ranks = std::nullopt;
  int groups = 1;
  int nodes = 1;
};
void AddShapeFlags(CLI::App* app, EplbShapeFlags& flags);

// placement: null where there is no file; its slots are those of the shape, whatever flags say must
// agree. Without either: a slot an expert.
Result<moe::SlotShape> MakeShape(const EplbShapeFlags& flags, int num_experts,
                                 const plan::PlacementFile* placement);

// Files list slots; planning has places, of which some may be empty.
moe::SlotList PlacesOf(const moe::SlotShape& shape, std::span<const int32_t> slots);
std::vector<int32_t> SlotsOf(const moe::SlotShape& shape, std::span<const int32_t> places);

// The list of a file's layer, as places. kInvalidArgument: the file has no such layer.
Result<moe::SlotList> PlacesOfLayer(const plan::PlacementFile& placement, const std::string& path,
                                    const moe::SlotShape& shape, int layer);

}  // namespace moebius::app
