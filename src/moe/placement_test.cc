#include "moe/placement.h"

#include <gtest/gtest.h>

namespace moebius::moe {
namespace {

TEST(Placement, IdentityHoldsEachExpertOnce) {
  const Placement placement = Placement::Identity(5);
  EXPECT_EQ(placement.num_experts(), 5);
  EXPECT_EQ(placement.num_slots(), 5);
  for (int e = 0; e < 5; ++e) {
    EXPECT_EQ(placement.expert(SlotId(e)), ExpertId(e));
    ASSERT_EQ(placement.slots(ExpertId(e)).size(), 1u);
    EXPECT_EQ(placement.slots(ExpertId(e))[0], e);
  }
  EXPECT_EQ(Placement::Identity(0).num_slots(), 0);
}

TEST(Placement, CopiesAndEmptySlots) {
  const auto placement = Placement::Create(3, {2, -1, 0, 2, 1});
  ASSERT_TRUE(placement) << placement.error().message();
  EXPECT_FALSE(placement->expert(SlotId(1)).valid());
  const auto copies = placement->slots(ExpertId(2));
  EXPECT_EQ(std::vector<int32_t>(copies.begin(), copies.end()), (std::vector<int32_t>{0, 3}));
}

TEST(LinearSlots, OneAnExpertAsEvenAsTheyGo) {
  EXPECT_EQ(LinearSlots(10, 4), (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, -1, 8, 9, -1}));
  EXPECT_EQ(LinearSlots(3, 1), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(LinearSlots(6, 2, 6), LinearSlots(6, 2));
}

TEST(LinearSlots, SpareSlotsGoOnWithTheNeighboursExperts) {
  EXPECT_EQ(LinearSlots(6, 2, 8), (std::vector<int32_t>{0, 1, 2, 3, 3, 4, 5, 0}));
  EXPECT_EQ(LinearSlots(4, 3, 7), (std::vector<int32_t>{0, 1, 2, 2, 3, -1, 3, 0, -1}));
  EXPECT_EQ(LinearSlots(2, 2, 6), (std::vector<int32_t>{0, 1, 0, 1, 0, 1}));
}

TEST(LinearSlots, EveryExpertHasASlotWhateverTheNumbers) {
  for (int64_t experts = 1; experts <= 12; ++experts) {
    for (int ranks = 1; ranks <= experts; ++ranks) {
      for (int64_t slots = experts; slots <= 3 * experts; ++slots) {
        EXPECT_TRUE(
            Placement::Create(static_cast<int>(experts), LinearSlots(experts, ranks, slots)))
            << experts << " experts, " << ranks << " ranks, " << slots << " slots";
      }
    }
  }
}

TEST(Placement, RefusesWhatCannotServe) {
  EXPECT_EQ(Placement::Create(3, {0, 1}).error().message(),
            "placement: expert 2 has no slot, expected at least one");
  EXPECT_EQ(Placement::Create(2, {0, 1, 2}).error().message(),
            "placement: slot 2 holds expert 2, expected one below 2");
}

}  // namespace
}  // namespace moebius::moe
