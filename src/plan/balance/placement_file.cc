#include "plan/balance/placement_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "base/suggest.h"
#include "moe/balance/options.h"

namespace moebius::plan {
namespace {

constexpr const char* kNumSlots = "num_slots";
constexpr const char* kAssignments = "initial_global_assignments";
constexpr const char* kLayerUpdates = "layer_updates_per_iter";
constexpr const char* kEpSize = "ep_size";

// What stands where a number was expected.
std::string Found(const YAML::Node& node) {
  if (node.IsScalar()) return fmt::format("'{}'", node.Scalar());
  if (node.IsSequence()) return "a list";
  return node.IsMap() ? "a map" : "nothing";
}

class PlacementReader {
 public:
  PlacementReader(const std::string& where, bool has_lines)
      : where_(where), has_lines_(has_lines) {}

  Result<PlacementFile> Read(const YAML::Node& file, int num_experts) {
    if (!file.IsMap()) {
      return MakeError(ErrorCode::kCorrupt, "{}: expected a map of keys, such as num_slots: 288",
                       where_);
    }
    std::set<std::string> seen;
    for (const auto& entry : file) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (!seen.insert(key).second) {
        return MakeError(ErrorCode::kCorrupt, "{}: {} stands there twice, expected once",
                         At(entry.first), key);
      }
      MOEBIUS_TRY(ReadKey(key, entry.first, entry.second));
    }
    if (!seen.contains(kNumSlots)) {
      return MakeError(ErrorCode::kCorrupt, "{}: num_slots is missing, expected slots of a layer",
                       where_);
    }
    MOEBIUS_TRY(Check(num_experts));
    return std::move(placement_);
  }

 private:
  std::string At(const YAML::Node& node) const {
    return has_lines_ ? fmt::format("{}:{}", where_, node.Mark().line + 1) : where_;
  }

  Result<int> Number(const std::string& name, const YAML::Node& node) const {
    int value = 0;
    if (node.IsScalar() && YAML::convert<int>::decode(node, value) && value >= 0) return value;
    return MakeError(ErrorCode::kCorrupt, "{}: {} is {}, expected a whole number of 0 or more",
                     At(node), name, Found(node));
  }

  Status ReadKey(const std::string& key, const YAML::Node& name, const YAML::Node& value) {
    if (key == kAssignments) return ReadAssignments(value);
    int* target = key == kNumSlots       ? &placement_.num_slots
                  : key == kLayerUpdates ? &placement_.layer_updates_per_iter
                  : key == kEpSize       ? &placement_.ep_size
                                         : nullptr;
    if (target == nullptr) {
      const std::vector<std::string> known = {kNumSlots, kAssignments, kLayerUpdates, kEpSize};
      return MakeError(ErrorCode::kCorrupt, "{}: unknown key '{}'{}: expected one of {}", At(name),
                       key, DidYouMean(key, known), fmt::join(known, ", "));
    }
    MOEBIUS_ASSIGN(*target, Number(key, value));
    return {};
  }

  Status ReadAssignments(const YAML::Node& layers) {
    if (layers.IsNull()) return {};
    if (!layers.IsMap()) {
      return MakeError(ErrorCode::kCorrupt,
                       "{}: {} is {}, expected a map from layer to the experts of its slots",
                       At(layers), kAssignments, Found(layers));
    }
    for (const auto& entry : layers) {
      MOEBIUS_ASSIGN(const int layer,
                     Number(fmt::format("a layer of {}", kAssignments), entry.first));
      const std::string name =
          fmt::format("{}: {}: layer {}", At(entry.first), kAssignments, layer);
      if (placement_.assignments.contains(layer)) {
        return MakeError(ErrorCode::kCorrupt, "{} stands there twice, expected once", name);
      }
      if (!entry.second.IsSequence()) {
        return MakeError(ErrorCode::kCorrupt, "{} is {}, expected a list of experts", name,
                         Found(entry.second));
      }
      std::vector<int32_t>& slots = placement_.assignments[layer];
      for (const auto& expert : entry.second) {
        MOEBIUS_ASSIGN(const int value, Number(fmt::format("{}: layer {}: slot {}", kAssignments,
                                                           layer, slots.size()),
                                               expert));
        slots.push_back(value);
      }
      placement_.names[layer] = name;
    }
    return {};
  }

  Status Check(int64_t num_experts) const {
    if (num_experts == 0) {
      for (const auto& [layer, slots] : placement_.assignments) {
        for (const int64_t expert : slots) num_experts = std::max(num_experts, expert + 1);
      }
    }
    if (placement_.num_slots != 0 && placement_.num_slots < num_experts) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: num_slots is {}, expected {} or more: each expert has a slot", where_,
                       placement_.num_slots, num_experts);
    }
    if (placement_.num_slots == 0 && !placement_.assignments.empty()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: num_slots is 0 (no balancing) and {} names layers, expected slots or "
                       "no layers",
                       where_, kAssignments);
    }
    for (const auto& [layer, slots] : placement_.assignments) {
      MOEBIUS_TRY(CheckLayer(placement_.names.at(layer), slots, num_experts));
    }
    return {};
  }

  Status CheckLayer(const std::string& name, const std::vector<int32_t>& slots,
                    int64_t num_experts) const {
    MOEBIUS_TRY(moe::CheckSlotList(name, slots, placement_.num_slots, num_experts));
    if (num_experts == kUnknownExperts) return {};
    std::vector<bool> has_slot(static_cast<size_t>(num_experts));
    for (const int32_t expert : slots) has_slot[static_cast<size_t>(expert)] = true;
    const auto missing = std::find(has_slot.begin(), has_slot.end(), false);
    if (missing == has_slot.end()) return {};
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: expert {} is in no slot, expected each of 0 to {} in one or more", name,
                     missing - has_slot.begin(), num_experts - 1);
  }

  const std::string where_;
  const bool has_lines_;
  PlacementFile placement_;
};

}  // namespace

Result<PlacementFile> ParsePlacement(const std::string& text, const std::string& where,
                                     int num_experts) {
  // What stands in a flag, or came there from another file, is one line without an end.
  const bool has_lines = text.find('\n') != std::string::npos;
  try {
    return PlacementReader(where, has_lines).Read(YAML::Load(text), num_experts);
  } catch (const YAML::Exception& error) {
    return MakeError(ErrorCode::kCorrupt, "{}:{}: {}", where, error.mark.line + 1, error.msg);
  }
}

Result<PlacementFile> ReadPlacementFile(const std::string& path, int num_experts) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return MakeError(ErrorCode::kNotFound,
                     "{}: cannot be read, expected a YAML file with num_slots and {}", path,
                     kAssignments);
  }
  return ParsePlacement(text.str(), path, num_experts);
}

std::string PlacementYaml(const PlacementFile& placement) {
  std::string text = fmt::format("num_slots: {}\n", placement.num_slots);
  if (placement.ep_size != 0) text += fmt::format("ep_size: {}\n", placement.ep_size);
  if (!placement.assignments.empty()) text += fmt::format("{}:\n", kAssignments);
  for (const auto& [layer, slots] : placement.assignments) {
    text += fmt::format("  {}: [{}]\n", layer, fmt::join(slots, ", "));
  }
  return text + fmt::format("{}: {}\n", kLayerUpdates, placement.layer_updates_per_iter);
}

}  // namespace moebius::plan
