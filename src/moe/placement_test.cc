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
  std::vector<int32_t> slots(4);
  ChooseSlots(*placement, std::vector<int32_t>{0, 1, 2, 2}, slots);
  EXPECT_EQ(slots, (std::vector<int32_t>{2, 4, 0, 0}));
}

TEST(Placement, RefusesWhatCannotServe) {
  EXPECT_EQ(Placement::Create(3, {0, 1}).error().message(),
            "placement: expert 2 has no slot, expected at least one");
  EXPECT_EQ(Placement::Create(2, {0, 1, 2}).error().message(),
            "placement: slot 2 holds expert 2, expected one below 2");
}

}  // namespace
}  // namespace moebius::moe
