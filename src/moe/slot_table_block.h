// A SlotTable as one block of words, for memory that kernels read and the host does not: of the
// same length and order whatever the table says, so that the next table can take the last one's
// place. A plain value, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moe/slot_table.h"

namespace moebius::moe {

class SlotTableBlock {
 public:
  SlotTableBlock() = default;
  SlotTableBlock(int64_t num_experts, int64_t num_slots)
      : num_experts_(static_cast<size_t>(num_experts)),
        num_slots_(static_cast<size_t>(num_slots)) {}

  size_t num_bytes() const { return (2 * num_experts_ + 1 + num_slots_) * sizeof(int32_t); }
  std::vector<int32_t> WordsOf(const SlotTable& table) const;

  // The parts of a block whose words are at `data`; of a table with home and slots a rank as
  // `table` has them.
  std::span<const int32_t> FirstSlot(const std::byte* data) const;
  kernels::ReplicaTable Copies(const std::byte* data, const SlotTable& table) const;

 private:
  size_t num_experts_ = 0;
  size_t num_slots_ = 0;  // at most, of all ranks
};

}  // namespace moebius::moe
