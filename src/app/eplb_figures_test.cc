#include "app/eplb_figures.h"

#include <gtest/gtest.h>

namespace moebius::app {
namespace {

// One layer of four experts, index 7.
EplbLoads LoadsOf(const std::vector<std::vector<double>>& windows) {
  EplbLoads loads;
  loads.trace = {1, 4, windows};
  loads.layers = {7};
  return loads;
}

LayerFigures FiguresOf(const EplbLoads& loads, const FigureOptions& options = {}) {
  auto layers = LayerFiguresOf(loads, options);
  EXPECT_TRUE(layers) << layers.error().message();
  return layers ? layers->front() : LayerFigures();
}

TEST(EplbFigures, ByIterationAndTogether) {
  const EplbLoads loads = LoadsOf({{4, 0, 0, 0}, {0, 4, 0, 0}, {0, 0, 4, 0}, {0, 0, 0, 4}});
  const LayerFigures figures = FiguresOf(loads);
  EXPECT_EQ(figures.layer, 7);
  EXPECT_DOUBLE_EQ(figures.mean, 1);
  EXPECT_DOUBLE_EQ(figures.std, 2);  // of a sample: sqrt((9 + 1 + 1 + 1) / 3)
  EXPECT_DOUBLE_EQ(figures.imbalance, 3);
  EXPECT_DOUBLE_EQ(figures.total.max_over_mean, 1);
  EXPECT_EQ(figures.counts, std::vector<double>(4, 4));
  EXPECT_FALSE(figures.ranks || figures.total_ranks || figures.best);
}

TEST(EplbFigures, RanksBeforeAndWithAPlacement) {
  const EplbLoads loads = LoadsOf({{30, 30, 10, 10}});
  FigureOptions options;
  options.shape = moe::SlotShape{.num_experts = 4, .num_slots = 4, .num_ranks = 2};
  LayerFigures figures = FiguresOf(loads, options);
  EXPECT_DOUBLE_EQ(figures.total_ranks->before, 0.5);
  EXPECT_FALSE(figures.total_ranks->after);
  EXPECT_DOUBLE_EQ(*figures.best, 0);
  plan::PlacementFile placement;
  placement.num_slots = 4;
  options.placement = &placement;
  options.placement_path = "p.yaml";
  EXPECT_EQ(LayerFiguresOf(loads, options).error().message(),
            "p.yaml: layer 7 is missing, which has loads: expected its slots");
  placement.assignments[7] = {0, 2, 1, 3};
  figures = FiguresOf(loads, options);
  EXPECT_DOUBLE_EQ(figures.total_ranks->before, 0.5);
  EXPECT_DOUBLE_EQ(*figures.total_ranks->after, 0);
  EXPECT_DOUBLE_EQ(*figures.ranks->after, 0);
}

TEST(EplbFigures, HowFarTheyAreFromAReference) {
  EplbLoads reference = LoadsOf({{600, 200, 100, 100}, {600, 200, 100, 100}});
  FigureOptions options;
  options.reference = &reference;
  options.reference_path = "old.json";
  LayerFigures figures = FiguresOf(LoadsOf({{300, 100, 50, 50}}), options);
  EXPECT_DOUBLE_EQ(*figures.kl, 0);
  EXPECT_FALSE(figures.differs);
  figures = FiguresOf(LoadsOf({{125, 125, 125, 125}}), options);
  EXPECT_NEAR(*figures.kl, 0.2951, 1e-4);
  EXPECT_TRUE(figures.differs);
  // With so few, chance makes as much of a difference.
  EXPECT_FALSE(FiguresOf(LoadsOf({{10, 10, 10, 10}}), options).differs);
  reference.layers = {8};
  EXPECT_EQ(LayerFiguresOf(LoadsOf({{1, 1, 1, 1}}), options).error().message(),
            "--reference old.json: layer 7 is missing, expected the layers of the loads");
  reference.trace = {1, 2, {{1, 1}}};
  EXPECT_EQ(LayerFiguresOf(LoadsOf({{1, 1, 1, 1}}), options).error().message(),
            "--reference old.json has 2 experts, expected 4");
}

// Four iterations of 100 tokens are a window of 100 an expert.
TEST(EplbFigures, StarvedInThreeWindows) {
  const std::vector<double> without_3 = {40, 30, 30, 0};
  const std::vector<double> with_3 = {25, 25, 25, 25};
  std::vector<std::vector<double>> windows(16, without_3);
  EXPECT_EQ(FiguresOf(LoadsOf(windows)).total.starved, std::vector<int32_t>{3});
  windows[0] = with_3;  // of the first window of four
  EXPECT_EQ(FiguresOf(LoadsOf(windows)).total.starved, std::vector<int32_t>{3});
  windows[5] = with_3;  // 25 of a mean of 100: not starved in one of the last three
  EXPECT_TRUE(FiguresOf(LoadsOf(windows)).total.starved.empty());
}

TEST(EplbInput, SlotsAndPlaces) {
  const moe::SlotShape shape{.num_experts = 3, .num_slots = 5, .num_ranks = 2};
  const std::vector<int32_t> slots = {0, 1, 2, 0, 1};
  const moe::SlotList places = PlacesOf(shape, slots);
  EXPECT_EQ(places, (moe::SlotList{0, 1, 2, 0, 1, -1}));
  EXPECT_EQ(SlotsOf(shape, places), slots);
}

TEST(EplbInput, ShapesOfFlagsAndFile) {
  plan::PlacementFile placement;
  placement.num_slots = 12;
  placement.ep_size = 4;
  const auto shape = MakeShape({}, 8, &placement);
  ASSERT_TRUE(shape) << shape.error().message();
  EXPECT_EQ(shape->num_slots, 12);
  EXPECT_EQ(shape->num_ranks, 4);
  EXPECT_EQ(MakeShape({.num_slots = 10}, 8, &placement).error().message(),
            "--num-slots is 10, expected 12 as in the placement file");
  EXPECT_EQ(MakeShape({.ranks = 3}, 8, &placement).error().message(),
            "--ranks is 3, expected 4, ep_size in the placement file");
  EXPECT_EQ(MakeShape({}, 8, nullptr).error().message(),
            "--ranks is missing, expected how many ranks share the 8 slots");
}

}  // namespace
}  // namespace moebius::app
