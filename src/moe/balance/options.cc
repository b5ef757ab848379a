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

}  // namespace

int64_t NumSlotsOf(const BalanceOptions& options, int64_t num_experts) {
  return options.num_slots > 0 ? options.num_slots : num_experts + options.num_redundant;
}

Result<SlotAssignment> SlotsOf(const BalanceOptions& options, int64_t num_experts,
                               std::span<const int64_t> moe_layers, int num_ranks) {
  SlotAssignment slots;
  slots.num_slots = NumSlotsOf(options, num_experts);
  if (slots.num_slots < num_experts) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "load_balancer.num_slots is {}, expected at least {}, one for each expert, or "
                     "0 for no balancing",
                     slots.num_slots, num_experts);
  }
  if (slots.num_slots > kMostSlots) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} gives {} slots of a layer, expected at most {}",
                     options.num_slots > 0 ? "load_balancer.num_slots" : "num_redundant_experts",
                     slots.num_slots, kMostSlots);
  }
  if (options.ep_size > 0 && options.ep_size != num_ranks) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "load_balancer.ep_size is {}, expected {}, the ranks that share experts",
                     options.ep_size, num_ranks);
  }
  for (const auto& [layer, list] : options.assignments) {
    if (std::ranges::find(moe_layers, layer) == moe_layers.end()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "initial_global_assignments has layer {}, expected layers with experts: {}",
                       layer, Range(moe_layers));
    }
    if (std::ssize(list) != slots.num_slots) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "initial_global_assignments of layer {} has {} entries, expected {}, what "
                       "num_slots is",
                       layer, list.size(), slots.num_slots);
    }
    if (const auto least = std::ranges::min_element(list); *least < 0) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "initial_global_assignments of layer {}: slot {} holds expert {}, expected "
                       "0 to {}",
                       layer, least - list.begin(), *least, num_experts - 1);
    }
    auto placement = Placement::Create(static_cast<int>(num_experts), list);
    if (!placement) {
      return tl::unexpected(placement.error().WithContext(
          fmt::format("initial_global_assignments of layer {}", layer)));
    }
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
