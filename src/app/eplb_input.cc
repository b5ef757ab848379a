#include "app/eplb_input.h"

#include <CLI/CLI.hpp>
#include <numeric>
#include <utility>

#include "app/flag_kinds.h"
#include "plan/balance/load_file.h"
#include "plan/balance/statistics_folder.h"

namespace moebius::app {
namespace {

constexpr const char* kLoads = "Loads";
constexpr const char* kSlots = "Slots";
constexpr int kMostSlots = 1 << 20;
constexpr int kMostFirstLayer = 1 << 20;

Result<EplbLoads> FromFile(const EplbInput& input) {
  MOEBIUS_ASSIGN(const plan::LayerLoads layers, plan::ReadLoadFile(input.load));
  EplbLoads loads;
  loads.layers.resize(layers.size());
  std::iota(loads.layers.begin(), loads.layers.end(), input.first_layer);
  loads.trace.num_layers = static_cast<int>(layers.size());
  loads.trace.num_experts = static_cast<int>(layers.front().size());
  std::vector<double>& window = loads.trace.windows.emplace_back();
  for (const std::vector<double>& layer : layers) {
    window.insert(window.end(), layer.begin(), layer.end());
  }
  return loads;
}

Result<EplbLoads> FromFolder(const EplbInput& input) {
  plan::ReadStatisticsOptions options;
  options.iter_start = input.iter_start;
  options.iter_stop = input.iter_stop;
  plan::PlacementFile counted;
  if (!input.counted_slots.empty()) {
    MOEBIUS_ASSIGN(counted, plan::ReadPlacementFile(input.counted_slots));
    options.placement = &counted;
  }
  MOEBIUS_ASSIGN(const plan::ExpertStatistics statistics,
                 plan::ReadStatistics(input.statistics, options));
  EplbLoads loads;
  loads.layers = statistics.layers;
  loads.first_iteration = statistics.first_iteration;
  loads.trace.num_layers = static_cast<int>(statistics.layers.size());
  loads.trace.num_experts = statistics.meta.num_experts;
  for (const plan::LayerCounts& iteration : statistics.iterations) {
    std::vector<double>& window = loads.trace.windows.emplace_back();
    for (const std::vector<int64_t>& counts : iteration) {
      window.insert(window.end(), counts.begin(), counts.end());
    }
  }
  return loads;
}

}  // namespace

void AddInputFlags(CLI::App* app, EplbInput& input) {
  app->add_option("DIR", input.statistics,
                  "Recorded statistics: meta_info.json, rank<r>.safetensors")
      ->group(kLoads);
  AddText(app, "--expert-statistic-path,--statistics", input.statistics, "The same, as a flag")
      ->group(kLoads);
  AddText(app, "--load", input.load, "JSON file instead: {\"load\": [[per expert] per layer]}")
      ->group(kLoads);
  AddNumber(app, "--iter-start", input.iter_start, "First iteration that counts (default: all)", 0)
      ->group(kLoads);
  AddNumber(app, "--iter-stop", input.iter_stop, "The one after the last", 0)->group(kLoads);
  AddText(app, "--counted-slots", input.counted_slots,
          "Placement (YAML) that was in use, where the statistics count its slots")
      ->group(kLoads);
  AddNumber(app, "--first-layer", input.first_layer,
            "--load: the model's index of the file's first layer", 0, kMostFirstLayer)
      ->group(kLoads);
}

Status CheckInput(const EplbInput& input) {
  if (input.statistics.empty() == input.load.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: expected one of DIR (recorded statistics) and --load FILE.json",
                     input.load.empty() ? "no loads" : "two kinds of loads");
  }
  if (!input.load.empty() &&
      (input.iter_start || input.iter_stop || !input.counted_slots.empty())) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--iter-start, --iter-stop and --counted-slots are of a folder of statistics, "
                     "not of --load");
  }
  if (input.load.empty() && input.first_layer != 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--first-layer is of --load: statistics name their layers");
  }
  return {};
}

std::vector<double> EplbLoads::Sum(int layer) const {
  std::vector<double> sum(static_cast<size_t>(trace.num_experts));
  for (size_t window = 0; window < trace.windows.size(); ++window) {
    const std::span<const double> loads = trace.Layer(window, layer);
    for (size_t expert = 0; expert < sum.size(); ++expert) sum[expert] += loads[expert];
  }
  return sum;
}

Result<EplbLoads> ReadLoads(const EplbInput& input) {
  return input.load.empty() ? FromFolder(input) : FromFile(input);
}

void AddShapeFlags(CLI::App* app, EplbShapeFlags& flags) {
  AddNumber(app, "--num-slots", flags.num_slots,
            "Slots of a layer: its experts and the copies (default: --from's, or a slot an expert)",
            1, kMostSlots)
      ->group(kSlots);
  AddNumber(app, "--ep-size,--ranks", flags.ranks, "Ranks that share the slots", 1, kMostSlots)
      ->group(kSlots);
  AddNumber(app, "--groups", flags.groups, "Expert groups of the router (DeepSeek's n_group)", 1,
            kMostSlots)
      ->group(kSlots);
  AddNumber(app, "--nodes", flags.nodes, "Machines that the ranks are on, in order", 1, kMostSlots)
      ->group(kSlots);
}

Result<moe::SlotShape> MakeShape(const EplbShapeFlags& flags, int num_experts,
                                 const plan::PlacementFile* placement) {
  moe::SlotShape shape;
  shape.num_experts = num_experts;
  shape.num_groups = flags.groups;
  shape.num_nodes = flags.nodes;
  shape.num_slots =
      flags.num_slots.value_or(placement != nullptr ? placement->num_slots : num_experts);
  if (placement != nullptr && placement->num_slots != shape.num_slots) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--num-slots is {}, expected {} as in the placement file", shape.num_slots,
                     placement->num_slots);
  }
  const int file_ranks = placement != nullptr ? placement->ep_size : 0;
  if (!flags.ranks && file_ranks == 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--ranks is missing, expected how many ranks share the {} slots",
                     shape.num_slots);
  }
  shape.num_ranks = flags.ranks.value_or(file_ranks);
  if (file_ranks != 0 && file_ranks != shape.num_ranks) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--ranks is {}, expected {}, ep_size in the placement file", shape.num_ranks,
                     file_ranks);
  }
  MOEBIUS_TRY(moe::CheckShape(shape));
  return shape;
}

moe::SlotList PlacesOf(const moe::SlotShape& shape, std::span<const int32_t> slots) {
  moe::SlotList places(static_cast<size_t>(shape.num_places()), -1);
  for (int rank = 0; rank < shape.num_ranks; ++rank) {
    for (int slot = 0; slot < shape.SlotsOf(rank); ++slot) {
      places[static_cast<size_t>(rank * shape.places_per_rank() + slot)] =
          slots[static_cast<size_t>(shape.FirstSlot(rank) + slot)];
    }
  }
  return places;
}

std::vector<int32_t> SlotsOf(const moe::SlotShape& shape, std::span<const int32_t> places) {
  std::vector<int32_t> slots;
  slots.reserve(static_cast<size_t>(shape.num_slots));
  for (const int32_t expert : places) {
    if (expert >= 0) slots.push_back(expert);
  }
  return slots;
}

Result<moe::SlotList> PlacesOfLayer(const plan::PlacementFile& placement, const std::string& path,
                                    const moe::SlotShape& shape, int layer) {
  const auto slots = placement.assignments.find(layer);
  if (slots != placement.assignments.end()) return PlacesOf(shape, slots->second);
  return MakeError(ErrorCode::kInvalidArgument,
                   "{}: layer {} is missing, which has loads: expected its slots", path, layer);
}

}  // namespace moebius::app
