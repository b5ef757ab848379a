#include "moe/slot_table.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "moe/slot_table_block.h"

namespace moebius::moe {
namespace {

TEST(SlotTable, OneSlotAnExpertNeedsNoChoice) {
  const SlotTable table(*Placement::Create(3, {2, -1, 0, 1}), 2, 1);
  EXPECT_EQ(std::vector(table.first_slot().begin(), table.first_slot().end()),
            (std::vector<int32_t>{2, 3, 0}));
  EXPECT_TRUE(table.replicas().empty());
}

TEST(SlotTable, CopiesByExpert) {
  const Placement placement = *Placement::Create(3, {0, 1, 0, 2, 0, 1});
  const SlotTable slots(placement, 2, 1);
  const kernels::ReplicaTable table = slots.replicas();
  EXPECT_EQ(std::vector(table.begin.begin(), table.begin.end()),
            (std::vector<int32_t>{0, 3, 5, 6}));
  EXPECT_EQ(std::vector(table.slots.begin(), table.slots.end()),
            (std::vector<int32_t>{0, 2, 4, 1, 5, 3}));
  EXPECT_EQ(table.slots_per_rank, 2);
  EXPECT_EQ(table.home, 1);
}

TEST(SlotTable, ABlockHasAllOfIt) {
  for (const std::vector<int32_t>& experts :
       {std::vector<int32_t>{0, 1, 0, 2, 0, 1}, std::vector<int32_t>{2, 1, 0, 0, 1, -1}}) {
    const SlotTable table(*Placement::Create(3, experts), 2, 1);
    const SlotTableBlock block(3, 6);
    const std::vector<int32_t> words = block.WordsOf(table);
    ASSERT_EQ(words.size() * sizeof(int32_t), block.num_bytes());
    const auto* const data = reinterpret_cast<const std::byte*>(words.data());
    EXPECT_TRUE(std::ranges::equal(block.FirstSlot(data), table.first_slot()));
    const kernels::ReplicaTable want = table.copies();
    const kernels::ReplicaTable got = block.Copies(data, table);
    EXPECT_TRUE(std::ranges::equal(got.begin, want.begin));
    EXPECT_TRUE(std::ranges::equal(got.slots.first(want.slots.size()), want.slots));
    EXPECT_EQ(got.slots.size(), 6u);
    EXPECT_EQ(got.slots_per_rank, 2);
    EXPECT_EQ(got.home, 1);
  }
}

}  // namespace
}  // namespace moebius::moe
