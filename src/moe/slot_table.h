// How one rank finds the slots of a layer's experts: what routing reads (kernels::SlotChoice), made
// from a placement. Const once made; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "moe/placement.h"

namespace moebius::moe {

class SlotTable {
 public:
  SlotTable() = default;
  // home: the rank that routes with it, among those whose slots these are, slots_per_rank each; its
  // copies come first. Negative: no rank's do.
  SlotTable(const Placement& placement, int slots_per_rank, int home);

  // Of each expert, the slot of its first copy.
  std::span<const int32_t> first_slot() const { return first_slot_; }
  // Of all experts, also those with one copy.
  kernels::ReplicaTable copies() const;
  // The same; empty where no expert has several copies.
  kernels::ReplicaTable replicas() const {
    return has_copies_ ? copies() : kernels::ReplicaTable();
  }

 private:
  std::vector<int32_t> first_slot_;
  std::vector<int32_t> begin_;
  std::vector<int32_t> slots_;
  int slots_per_rank_ = 1;
  int home_ = 0;
  bool has_copies_ = false;
};

}  // namespace moebius::moe
