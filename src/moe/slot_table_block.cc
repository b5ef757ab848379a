#include "moe/slot_table_block.h"

#include <algorithm>

#include "base/check.h"

namespace moebius::moe {

std::vector<int32_t> SlotTableBlock::WordsOf(const SlotTable& table) const {
  const kernels::ReplicaTable copies = table.copies();
  MOEBIUS_CHECK_EQ(table.first_slot().size(), num_experts_);
  MOEBIUS_CHECK_LE(copies.slots.size(), num_slots_);
  std::vector<int32_t> words(num_bytes() / sizeof(int32_t), -1);
  auto next = std::ranges::copy(table.first_slot(), words.begin()).out;
  next = std::ranges::copy(copies.begin, next).out;
  std::ranges::copy(copies.slots, next);
  return words;
}

std::span<const int32_t> SlotTableBlock::FirstSlot(const std::byte* data) const {
  return {reinterpret_cast<const int32_t*>(data), num_experts_};
}

kernels::ReplicaTable SlotTableBlock::Copies(const std::byte* data, const SlotTable& table) const {
  const auto* const begin = reinterpret_cast<const int32_t*>(data) + num_experts_;
  const int32_t* const slots = begin + num_experts_ + 1;
  kernels::ReplicaTable copies = table.copies();
  copies.begin = {begin, num_experts_ + 1};
  copies.slots = {slots, num_slots_};
  return copies;
}

}  // namespace moebius::moe
