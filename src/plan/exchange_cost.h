// How long tokens take between GPUs. Pure functions, any thread. The bytes of an OpCost are those
// that one GPU sends over links.
#pragma once

#include <cstdint>

#include "plan/device.h"
#include "plan/op_cost.h"

namespace moebius::plan {

// Expected number of distinct groups that a token visits when its k experts of E are drawn without
// repetition and E/g of them live in each of g groups: g (1 - C(E - E/g, k) / C(E, k)).
double DistinctGroups(double num_experts, int64_t top_k, double num_groups);

struct ExchangeShape {
  int ranks = 1;  // EP
  int gpus_per_node = 8;
  int64_t tokens = 1;  // of one rank
  int64_t num_slots = 1;
  int64_t top_k = 1;
  int64_t hidden = 1;
  double element_bytes = 2;
  bool by_node = false;  // once to a node and passed on inside (throughput kernels, prefill) rather
                         // than once to every rank (decode)
  double load = 1;       // of the busiest rank
};
// One way of an all-to-all: bytes of distinct ranks; the share on each kind of link by where those
// ranks are.
OpCost Dispatch(const Device& device, const ExchangeShape& shape);
OpCost Combine(const Device& device, const ExchangeShape& shape);

// Collectives over `ranks` adjacent ranks; bytes: of the whole gathered (or reduced) tensor.
OpCost AllReduce(const Device& device, int ranks, int gpus_per_node, double bytes);
OpCost AllGather(const Device& device, int ranks, int gpus_per_node, double bytes);
OpCost ReduceScatter(const Device& device, int ranks, int gpus_per_node, double bytes);

// From one pipeline stage to the next.
OpCost SendRecv(const Device& device, bool between_nodes, double bytes);

}  // namespace moebius::plan
