// What a deployment wishes of its balancer, by the names of TensorRT-LLM's load_balancer block and
// vLLM's --eplb-config. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/result.h"
#include "moe/placement.h"

namespace moebius::moe {

struct BalanceOptions {
  int64_t num_slots = 0;      // of a layer, over all ranks; 0: one an expert
  int64_t num_redundant = 0;  // instead: so many beyond one an expert
  // By layer of the model: the expert of each slot. Layers that are not there begin in order.
  std::map<int64_t, std::vector<int32_t>> assignments;
  int layer_updates_per_iter = 0;  // layers that may change in one step; 0: none ever does

  bool is_on() const { return num_slots > 0 || num_redundant > 0 || layer_updates_per_iter > 0; }
};

// The slots of `moe_layers`, which are layers of the model, on so many ranks. Slot s of a list lies
// on rank s / ceil(S / ranks). kInvalidArgument names the field, the layer and the slot that is
// wrong.
Result<SlotAssignment> SlotsOf(const BalanceOptions& options, int64_t num_experts,
                               std::span<const int64_t> moe_layers, int num_ranks);

}  // namespace moebius::moe
