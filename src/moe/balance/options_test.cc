#include "moe/balance/options.h"

#include <gtest/gtest.h>

namespace moebius::moe {
namespace {

constexpr int64_t kModelLayers[] = {1, 2, 4};

std::string ErrorOf(int64_t num_slots, std::map<int64_t, std::vector<int32_t>> assignments) {
  BalanceOptions options;
  options.num_slots = num_slots;
  options.assignments = std::move(assignments);
  const auto slots = SlotsOf(options, 4, kModelLayers, 2);
  return slots ? "none" : slots.error().message();
}

TEST(BalanceOptions, SlotsInOrderUnlessALayerSaysOtherwise) {
  BalanceOptions options;
  options.num_redundant = 2;
  EXPECT_EQ(SlotsOf(options, 4, kModelLayers, 2)->num_slots, 6);
  EXPECT_TRUE(SlotsOf(options, 4, kModelLayers, 2)->layers.empty());

  options.num_slots = 5;
  options.assignments[2] = {3, 2, 1, 0, 3};
  const SlotAssignment slots = *SlotsOf(options, 4, kModelLayers, 2);
  EXPECT_EQ(slots.num_slots, 5);
  ASSERT_EQ(slots.layers.size(), 3u);
  EXPECT_EQ(slots.layers[0], LinearSlots(4, 2, 5));
  EXPECT_EQ(slots.layers[1], (std::vector<int32_t>{3, 2, 1, 0, 3, -1}));
}

TEST(BalanceOptions, ErrorsNameTheField) {
  EXPECT_EQ(ErrorOf(3, {}),
            "load_balancer.num_slots is 3, expected at least 4, one for each expert, or 0 for no "
            "balancing");
  EXPECT_EQ(ErrorOf(1 << 20, {}),
            "load_balancer.num_slots gives 1048576 slots of a layer, expected at most 65536");
  const auto of = [](int64_t layer, std::vector<int32_t> list) {
    return ErrorOf(5, {{layer, std::move(list)}});
  };
  EXPECT_EQ(of(3, {0, 1, 2, 3, 0}),
            "initial_global_assignments has layer 3, expected layers with experts: one of 1 to 4");
  EXPECT_EQ(of(1, {0, 1, 2, 3}),
            "initial_global_assignments of layer 1 has 4 entries, expected 5, what num_slots is");
  EXPECT_EQ(of(1, {0, 1, 2, 3, -1}),
            "initial_global_assignments of layer 1: slot 4 holds expert -1, expected 0 to 3");
  EXPECT_EQ(of(4, {0, 1, 2, 2, 0}),
            "initial_global_assignments of layer 4: placement: expert 3 has no slot, expected at "
            "least one");
}

}  // namespace
}  // namespace moebius::moe
