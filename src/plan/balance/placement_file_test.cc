#include "plan/balance/placement_file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace moebius::plan {
namespace {

constexpr const char* kToy =
    "num_slots: 8\n"
    "initial_global_assignments:\n"
    "  1: [4, 2, 5, 1, 0, 0, 3, 5]\n"
    "  2: [0, 1, 2, 3, 4, 5, 0, 1]\n"
    "layer_updates_per_iter: 0\n";

std::string ErrorOf(const std::string& text, int num_experts = 0) {
  const auto placement = ParsePlacement(text, "toy.yaml", num_experts);
  EXPECT_FALSE(placement) << text;
  return placement ? "" : placement.error().message();
}

TEST(PlacementFile, ReadsAndWritesTheSameBytes) {
  const auto placement = ParsePlacement(kToy, "toy.yaml", 6);
  ASSERT_TRUE(placement) << placement.error().message();
  EXPECT_EQ(placement->num_slots, 8);
  EXPECT_EQ(placement->layer_updates_per_iter, 0);
  EXPECT_EQ(placement->assignments.at(1), (std::vector<int32_t>{4, 2, 5, 1, 0, 0, 3, 5}));
  EXPECT_EQ(placement->assignments.size(), 2u);
  EXPECT_EQ(PlacementYaml(*placement), kToy);
}

TEST(PlacementFile, OtherSpellings) {
  const auto block = ParsePlacement(
      "layer_updates_per_iter: 1\nep_size: 2\ninitial_global_assignments:\n  3:\n  - 1\n  - 0\n"
      "num_slots: 2\n",
      "x");
  ASSERT_TRUE(block) << block.error().message();
  EXPECT_EQ(block->ep_size, 2);
  EXPECT_EQ(block->assignments.at(3), (std::vector<int32_t>{1, 0}));
  const auto json = ParsePlacement(
      R"({"num_slots": 2, "initial_global_assignments": {"3": [1, 0]}})", "--moe-config");
  ASSERT_TRUE(json) << json.error().message();
  EXPECT_EQ(json->assignments, block->assignments);
  const auto online = ParsePlacement("num_slots: 288\nlayer_updates_per_iter: 1\n", "x", 256);
  ASSERT_TRUE(online) << online.error().message();
  EXPECT_EQ(PlacementYaml(*online), "num_slots: 288\nlayer_updates_per_iter: 1\n");
  EXPECT_TRUE(ParsePlacement("num_slots: 0\n", "x", 256));
}

TEST(PlacementFile, ErrorsNameKeyLayerSlotAndValue) {
  EXPECT_EQ(ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 1]\n"),
            "toy.yaml:3: initial_global_assignments: layer 4 lists 2 slots, expected num_slots, "
            "which is 3");
  EXPECT_EQ(
      ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 2, 0]\n"),
      "toy.yaml:3: initial_global_assignments: layer 4: expert 1 is in no slot, expected each "
      "of 0 to 2 in one or more");
  EXPECT_EQ(ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 1, 7]\n", 3),
            "toy.yaml:3: initial_global_assignments: layer 4: slot 2 holds 7, expected 0 to 2");
  EXPECT_EQ(ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 1, -1]\n"),
            "toy.yaml:3: initial_global_assignments: layer 4: slot 2 is '-1', expected a whole "
            "number of 0 or more");
  EXPECT_EQ(ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 1, [2]]\n"),
            "toy.yaml:3: initial_global_assignments: layer 4: slot 2 is a list, expected a whole "
            "number of 0 or more");
  EXPECT_EQ(ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 1, 2147483647]\n"),
            "toy.yaml: num_slots is 3, expected 2147483648 or more: each expert has a slot");
  EXPECT_EQ(ErrorOf("num_slots: 4\n", 6),
            "toy.yaml: num_slots is 4, expected 6 or more: each expert has a slot");
  EXPECT_EQ(ErrorOf("num_slots: 0\ninitial_global_assignments: {1: []}\n"),
            "toy.yaml: num_slots is 0 (no balancing) and initial_global_assignments names layers, "
            "expected slots or no layers");
}

TEST(PlacementFile, ExpertsOfAModelThatIsNotThereYetAreNotJudged) {
  const std::string text = "num_slots: 3\ninitial_global_assignments:\n  4: [0, 1, 99]\n";
  const auto placement = ParsePlacement(text, "toy.yaml", kUnknownExperts);
  ASSERT_TRUE(placement) << placement.error().message();
  EXPECT_EQ(placement->names.at(4), "toy.yaml:3: initial_global_assignments: layer 4");
  EXPECT_EQ(ErrorOf("num_slots: 3\ninitial_global_assignments:\n  4: [0, 1]\n", kUnknownExperts),
            "toy.yaml:3: initial_global_assignments: layer 4 lists 2 slots, expected num_slots, "
            "which is 3");
}

TEST(PlacementFile, WhatIsOneLineNamesNone) {
  EXPECT_EQ(ErrorOf(R"({"num_slots": 3, "initial_global_assignments": {"4": [0, 1]}})"),
            "toy.yaml: initial_global_assignments: layer 4 lists 2 slots, expected num_slots, "
            "which is 3");
}

TEST(PlacementFile, ErrorsOfKeys) {
  EXPECT_EQ(ErrorOf("num_slot: 4\n"),
            "toy.yaml:1: unknown key 'num_slot' (did you mean num_slots?): expected one of "
            "num_slots, initial_global_assignments, layer_updates_per_iter, ep_size");
  EXPECT_EQ(ErrorOf("num_slots: 4\nnum_slots: 4\n"),
            "toy.yaml:2: num_slots stands there twice, expected once");
  EXPECT_EQ(ErrorOf("num_slots: 1\ninitial_global_assignments:\n  1: [0]\n  1: [0]\n"),
            "toy.yaml:4: initial_global_assignments: layer 1 stands there twice, expected once");
  EXPECT_EQ(
      ErrorOf("num_slots: 1\ninitial_global_assignments:\n  one: [0]\n"),
      "toy.yaml:3: a layer of initial_global_assignments is 'one', expected a whole number of "
      "0 or more");
  EXPECT_EQ(ErrorOf("num_slots: 1\ninitial_global_assignments:\n  1: 0\n"),
            "toy.yaml:3: initial_global_assignments: layer 1 is '0', expected a list of experts");
  EXPECT_EQ(ErrorOf("num_slots: 1\ninitial_global_assignments: [0]\n"),
            "toy.yaml:2: initial_global_assignments is a list, expected a map from layer to the "
            "experts of its slots");
  EXPECT_EQ(ErrorOf("layer_updates_per_iter: 1\n"),
            "toy.yaml: num_slots is missing, expected slots of a layer");
  EXPECT_EQ(ErrorOf("num_slots: 1.5\n"),
            "toy.yaml:1: num_slots is '1.5', expected a whole number of 0 or more");
  EXPECT_EQ(ErrorOf("num_slots: 99999999999\n"),
            "toy.yaml:1: num_slots is '99999999999', expected a whole number of 0 or more");
  EXPECT_EQ(ErrorOf("[1, 2]"), "toy.yaml: expected a map of keys, such as num_slots: 288");
  EXPECT_TRUE(ErrorOf("num_slots: [1\n").starts_with("toy.yaml:")) << ErrorOf("num_slots: [1\n");
}

TEST(PlacementFile, Files) {
  const std::string path = testing::TempDir() + "placement_file_test.yaml";
  std::ofstream(path) << kToy;
  EXPECT_TRUE(ReadPlacementFile(path, 6));
  EXPECT_EQ(ReadPlacementFile(path, 9).error().message(),
            path + ": num_slots is 8, expected 9 or more: each expert has a slot");
  EXPECT_EQ(ReadPlacementFile("/nowhere.yaml").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(ReadPlacementFile(testing::TempDir()).error().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace moebius::plan
