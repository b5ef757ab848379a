#include "moe/balance/options.h"

#include <algorithm>
#include <string>

namespace moebius::moe {
namespace {

// Far beyond what helps: a mistake in a number shall not be memory.
constexpr int64_t kMostSlots = 65536;

// "layers 3 to 60", for who meant another one.
std::string Range(std::span<const int64_t> layers) {
  if (layers.empty()) return "none";
  return fmt::format("one of {} to {}", layers.front(), layers.back());
}

// "placement.yaml: num_slots", or by the block's name.
std::string FieldOf(const BalanceOptions& options, const char* field) {
  constexpr const char* kBlock = "moe_config.load_balancer";
  if (options.source.empty() || options.source == kBlock)
    return fmt::format("{}.{}", kBlock, field);
  return fmt::format("{}: {}", options.source, field);
}

}  // namespace

Status CheckSlotList(const std::string& name, std::span<const int32_t> list, int64_t num_slots,
                     int64_t num_experts) {
  if (std::ssize(list) != num_slots) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} lists {} slots, expected num_slots, which is {}", name, list.size(),
                     num_slots);
  }
  if (num_experts < 0) return {};
  for (size_t slot = 0; slot < list.size(); ++slot) {
    if (list[slot] >= 0 && list[slot] < num_experts) continue;
    return MakeError(ErrorCode::kInvalidArgument, "{}: slot {} holds {}, expected 0 to {}", name,
                     slot, list[slot], num_experts - 1);
  }
  return {};
}

int64_t NumSlotsOf(const BalanceOptions& options, int64_t num_experts) {
  return options.num_slots > 0 ? options.num_slots : num_experts + options.num_redundant;
}

Result<SlotAssignment> SlotsOf(const BalanceOptions& options, int64_t num_experts,
                               std::span<const int64_t> moe_layers, int num_ranks) {
  SlotAssignment slots;
  slots.num_slots = NumSlotsOf(options, num_experts);
  if (slots.num_slots < num_experts) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {}, expected at least {}, one for each expert, or 0 for no balancing",
                     FieldOf(options, "num_slots"), slots.num_slots, num_experts);
  }
  if (slots.num_slots > kMostSlots) {
    return MakeError(
        ErrorCode::kInvalidArgument, "{} gives {} slots of a layer, expected at most {}",
        options.num_slots > 0 ? "moe_config.load_balancer.num_slots" : "num_redundant_experts",
        slots.num_slots, kMostSlots);
  }
  if (options.ep_size > 0 && options.ep_size != num_ranks) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {}, expected {}, the ranks that share experts",
                     FieldOf(options, "ep_size"), options.ep_size, num_ranks);
  }
  for (const auto& [layer, list] : options.assignments) {
    const auto called = options.names.find(layer);
    const std::string name = called != options.names.end()
                                 ? called->second
                                 : fmt::format("initial_global_assignments: layer {}", layer);
    if (std::ranges::find(moe_layers, layer) == moe_layers.end()) {
      return MakeError(ErrorCode::kInvalidArgument, "{} has no experts, expected {}", name,
                       Range(moe_layers));
    }
    MOEBIUS_TRY(CheckSlotList(name, list, slots.num_slots, num_experts));
    const auto placement = Placement::Create(static_cast<int>(num_experts), list);
    if (!placement) return tl::unexpected(placement.error().WithContext(name));
  }
  if (options.assignments.empty()) return slots;
  // Where the empty places are.
  const std::vector<int32_t> linear = LinearSlots(num_experts, num_ranks, slots.num_slots);
  for (const int64_t layer : moe_layers) {
    slots.layers.push_back(linear);
    const auto found = options.assignments.find(layer);
    if (found == options.assignments.end()) continue;
    auto next = found->second.begin();
    for (int32_t& expert : slots.layers.back()) {
      if (expert >= 0) expert = *next++;
    }
  }
  return slots;
}

}  // namespace moebius::moe
