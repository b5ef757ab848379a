// What a deployment wishes of its balancer, by the names of TensorRT-LLM's load_balancer block and
// vLLM's --eplb-config. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/placement.h"

namespace moebius::moe {

// Experts that move between slots while requests run.
struct OnlineBalance {
  int layer_updates_per_iter = 0;  // layers that may change in one step; 0: none ever does
  int64_t step_interval = 100;     // steps from one change to the next, at least
  // Tokens that a layer has counted since it was last looked at, divided by its experts, at least.
  int64_t min_tokens_per_expert = 128;
  // Of a layer, what its busiest rank must lose by one, as a part of a mean rank's predicted time.
  double min_gain = 0.05;
  // What predicts that time: operations that a rank does while it reads a byte of weights. 0: time
  // is tokens alone, as if weights were there already. (One AVX-512 core multiplies 110 to 130
  // GFLOP/s and reads 11 to 15 GB/s: bench/results/kernels-cpu.md.)
  double flops_per_byte = 8;
  // Slots of each rank beside those of its layers, where experts arrive: what one change writes on
  // a rank at most.
  int num_staging = 4;
  int64_t bytes_per_second = 0;  // that a rank fetches, at most; 0: as fast as it goes
  bool host_pool = false;        // a copy of every expert in the memory that processes share
  bool is_random = false;        // swaps at random instead, whatever the load: for tests
  uint32_t seed = 1;

  bool is_on() const { return layer_updates_per_iter > 0; }
};

struct BalanceOptions {
  int64_t num_slots = 0;      // of a layer, over all ranks; 0: one an expert
  int64_t num_redundant = 0;  // instead: so many beyond one an expert
  int64_t ep_size = 0;        // ranks that a placement is for; 0: it does not say
  // By layer of the model: the expert of each slot. Layers that are not there begin in order.
  std::map<int64_t, std::vector<int32_t>> assignments;
  std::map<int64_t, std::string> names;  // of those layers: how errors call them
  std::string source;                    // of all that: the file, or the block's name
  OnlineBalance online;
  bool is_on = false;  // as somebody asked, whatever for
};

// Whether a layer's list has so many slots, and experts of the model in them (negative: their
// number is not known yet). kInvalidArgument begins with `name`.
Status CheckSlotList(const std::string& name, std::span<const int32_t> list, int64_t num_slots,
                     int64_t num_experts);

// Of a layer; as it stands, legal or not.
int64_t NumSlotsOf(const BalanceOptions& options, int64_t num_experts);

// The slots of `moe_layers`, which are layers of the model, on so many ranks. The slots of a list
// follow each other on the ranks, as even as they go, the first ranks one more. kInvalidArgument
// names the field, the layer and the slot that is wrong.
Result<SlotAssignment> SlotsOf(const BalanceOptions& options, int64_t num_experts,
                               std::span<const int64_t> moe_layers, int num_ranks);

}  // namespace moebius::moe
