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
  EXPECT_EQ(
      ErrorOf(3, {}),
      "moe_config.load_balancer.num_slots is 3, expected at least 4, one for each expert, or 0 "
      "for no balancing");
  EXPECT_EQ(ErrorOf(1 << 20, {}),
            "moe_config.load_balancer.num_slots gives 1048576 slots of a layer, expected at most "
            "65536");
  const auto of = [](int64_t layer, std::vector<int32_t> list) {
    return ErrorOf(5, {{layer, std::move(list)}});
  };
  EXPECT_EQ(of(3, {0, 1, 2, 3, 0}),
            "initial_global_assignments: layer 3 has no experts, expected one of 1 to 4");
  EXPECT_EQ(of(1, {0, 1, 2, 3}),
            "initial_global_assignments: layer 1 lists 4 slots, expected num_slots, which is 5");
  EXPECT_EQ(of(1, {0, 1, 2, 3, -1}),
            "initial_global_assignments: layer 1: slot 4 holds -1, expected 0 to 3");
  EXPECT_EQ(of(4, {0, 1, 2, 2, 0}),
            "initial_global_assignments: layer 4: placement: expert 3 has no slot, expected at "
            "least one");
}

TEST(BalanceOptions, ErrorsNameTheFileAndItsLine) {
  BalanceOptions options;
  options.source = "p.yaml";
  options.num_slots = 3;
  const auto error_of = [](const BalanceOptions& wrong) {
    return SlotsOf(wrong, 4, kModelLayers, 2).error().message();
  };
  EXPECT_EQ(error_of(options),
            "p.yaml: num_slots is 3, expected at least 4, one for each expert, or 0 for no "
            "balancing");
  options.num_slots = 5;
  options.ep_size = 3;
  EXPECT_EQ(error_of(options), "p.yaml: ep_size is 3, expected 2, the ranks that share experts");
  options.source = "moe_config.load_balancer";
  EXPECT_EQ(error_of(options),
            "moe_config.load_balancer.ep_size is 3, expected 2, the ranks that share experts");
  options.ep_size = 2;
  options.assignments[1] = {0, 1, 99, 2, 3};
  options.names[1] = "p.yaml:3: initial_global_assignments: layer 1";
  EXPECT_EQ(error_of(options),
            "p.yaml:3: initial_global_assignments: layer 1: slot 2 holds 99, expected 0 to 3");
}

}  // namespace
}  // namespace moebius::moe
