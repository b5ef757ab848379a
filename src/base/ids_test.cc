#include "base/ids.h"

#include <gtest/gtest.h>

#include <type_traits>
#include <unordered_set>

namespace moebius {
namespace {

static_assert(!std::is_convertible_v<ExpertId, SlotId>, "an expert is not a slot");
static_assert(!std::is_convertible_v<int, ExpertId>, "a plain number is no expert");
static_assert(!std::is_convertible_v<ExpertId, int>, "leaving the type is done by name");
static_assert(sizeof(BlockId) == sizeof(int32_t));

TEST(Ids, OrderEqualityAndHashAreThoseOfTheNumber) {
  EXPECT_FALSE(SlotId().valid());
  EXPECT_TRUE(SlotId(0).valid());
  EXPECT_LT(SlotId(1), SlotId(2));
  EXPECT_EQ(SlotId(7).Index(), 7u);
  const std::unordered_set<SlotId> slots = {SlotId(1), SlotId(2), SlotId(1)};
  EXPECT_EQ(slots.size(), 2u);
}

}  // namespace
}  // namespace moebius
