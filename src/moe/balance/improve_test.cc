#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "moe/balance/cost.h"
#include "moe/balance/load_trace.h"
#include "moe/balance/policy.h"
#include "moe/placement.h"

namespace moebius::moe {
namespace {

SlotList Improved(const SlotShape& shape, std::span<const double> load,
                  std::span<const int32_t> present, const ImproveOptions& options = {}) {
  const auto list = PlanLayer(BalancePolicy::kImprove, shape, load, present, options);
  EXPECT_TRUE(list) << list.error().message();
  return list.value_or(SlotList());
}

double ImbalanceOf(const SlotShape& shape, std::span<const double> load,
                   std::span<const int32_t> list) {
  return Imbalance(RankLoads(shape.num_ranks, load, list));
}

// Every expert has a slot, every slot an expert, nothing lies in the empty places.
void ExpectServes(const SlotShape& shape, const SlotList& list) {
  ASSERT_EQ(list.size(), static_cast<size_t>(shape.num_places()));
  std::vector<int> copies(static_cast<size_t>(shape.num_experts));
  for (int p = 0; p < shape.num_places(); ++p) {
    const int32_t e = list[static_cast<size_t>(p)];
    const bool empty = p % shape.places_per_rank() >= shape.SlotsOf(p / shape.places_per_rank());
    ASSERT_EQ(e < 0, empty) << "place " << p;
    ASSERT_LT(e, shape.num_experts);
    if (e >= 0) ++copies[static_cast<size_t>(e)];
  }
  EXPECT_EQ(std::count(copies.begin(), copies.end(), 0), 0);
}

int Between(std::mt19937& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<uint32_t>(high - low + 1));
}

SlotShape RandomShape(std::mt19937& random) {
  SlotShape shape;
  shape.num_nodes = Between(random, 1, 3);
  shape.num_groups = Between(random, 1, 2) * (Between(random, 0, 1) ? shape.num_nodes : 1);
  shape.num_experts = shape.num_groups * Between(random, 1, 8);
  shape.num_slots = shape.num_experts + Between(random, 0, shape.num_experts + 4);
  shape.num_ranks = Between(random, 1, std::min(shape.num_slots, 12));
  return shape;
}

// Skewed, with ties and experts that get nothing.
std::vector<double> RandomLoad(std::mt19937& random, int num_experts) {
  std::vector<double> load;
  for (int e = 0; e < num_experts; ++e) {
    const int x = Between(random, 0, 12);
    load.push_back(x * x * x);
  }
  return load;
}

// Whether no rank needs to hold an expert twice: of all experts, or of those of a node.
bool FitsWithoutPairs(const SlotShape& shape) {
  const int nodes = shape.HasNodeGroups() ? shape.num_nodes : 1;
  const int ranks = shape.num_ranks / nodes;
  for (int n = 0; n < nodes; ++n) {
    const int slots = shape.FirstSlot((n + 1) * ranks) - shape.FirstSlot(n * ranks);
    if (slots > shape.num_experts / nodes * ranks) return false;
  }
  return true;
}

TEST(Improve, RandomShapes) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    const SlotShape shape = RandomShape(random);
    SCOPED_TRACE(testing::Message()
                 << "round " << round << ": " << shape.num_experts << " experts, "
                 << shape.num_slots << " slots, " << shape.num_ranks << " ranks, "
                 << shape.num_groups << " groups, " << shape.num_nodes << " nodes");
    const std::vector<double> first_load = RandomLoad(random, shape.num_experts);
    const SlotList first = Improved(shape, first_load, {});
    ExpectServes(shape, first);
    EXPECT_EQ(NumSameRankCopies(shape, first) == 0, FitsWithoutPairs(shape));
    EXPECT_EQ(Improved(shape, first_load, {}), first);
    EXPECT_EQ(Improved(shape, first_load, first), first) << "the same load moved slots";
    EXPECT_GE(ImbalanceOf(shape, first_load, first) + 1e-9, BestImbalance(shape, first_load));

    const std::vector<double> load = RandomLoad(random, shape.num_experts);
    ImproveOptions options;
    options.max_moves = Between(random, 0, shape.num_slots);
    options.slot_gain = Between(random, 0, 1) ? 0 : 0.01;
    const SlotList next = Improved(shape, load, first, options);
    ExpectServes(shape, next);
    EXPECT_LE(NumMoves(first, next), options.max_moves);
    EXPECT_LE(NumSameRankCopies(shape, next), NumSameRankCopies(shape, first));
    EXPECT_LE(ImbalanceOf(shape, load, next), ImbalanceOf(shape, load, first) + 1e-9);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Improve, GroupsStayOnTheirNodes) {
  const SlotShape shape{
      .num_experts = 32, .num_slots = 40, .num_ranks = 8, .num_groups = 8, .num_nodes = 2};
  SyntheticLoads loads(1, 32, 1.0, 3);
  SlotList list;
  std::vector<int> first_homes;
  for (int update = 0; update < 5; ++update) {
    list = Improved(shape, loads.Popularity(), list);
    std::vector<int> homes(8, -1);
    for (int p = 0; p < shape.num_places(); ++p) {
      int& home = homes[static_cast<size_t>(list[static_cast<size_t>(p)] / 4)];
      const int node = p / shape.places_per_rank() / 4;
      EXPECT_TRUE(home < 0 || home == node) << "place " << p;
      home = node;
    }
    EXPECT_EQ(std::count(homes.begin(), homes.end(), 0), 4);
    if (update == 0) first_homes = homes;
    EXPECT_EQ(homes, first_homes);
    loads.Drift(0.5);
  }
}

// A list from elsewhere, with copies off their groups' nodes: they may go home, none leaves it.
TEST(Improve, BringsNoCopiesAwayFromHome) {
  const SlotShape shape{
      .num_experts = 16, .num_slots = 20, .num_ranks = 4, .num_groups = 4, .num_nodes = 2};
  SlotList list =
      LinearSlots(shape.num_experts, shape.num_ranks,
                  shape.num_slots);  // rank 1's spare slot holds an expert of the other node
  const auto num_foreign = [&](const SlotList& slots) {
    int foreign = 0;
    for (int p = 0; p < 20; ++p) foreign += slots[static_cast<size_t>(p)] / 8 != p / 10 ? 1 : 0;
    return foreign;
  };
  ASSERT_EQ(num_foreign(list), 2);
  SyntheticLoads loads(1, 16, 1.0, 3);
  for (int update = 0; update < 10; ++update) {
    const SlotList next = Improved(shape, loads.Popularity(), list);
    EXPECT_LE(num_foreign(next), num_foreign(list));
    list = next;
    loads.Drift(0.5);
  }
}

TEST(Improve, DissolvesPairsThatCost) {
  // TensorRT-LLM's own list: both copies of expert 0 on rank 1, which now is the hotter one.
  const SlotShape shape{.num_experts = 6, .num_slots = 8, .num_ranks = 2};
  const SlotList present = {4, 2, 5, 1, 0, 0, 3, 5};
  const std::vector<double> load = {120, 10, 30, 20, 40, 40};
  const SlotList list = Improved(shape, load, present);
  EXPECT_EQ(NumSameRankCopies(shape, list), 0);
  EXPECT_LE(NumMoves(present, list), 3);
  EXPECT_LT(ImbalanceOf(shape, load, list), 0.1);
}

TEST(Improve, HysteresisKeepsAll) {
  const SlotShape shape{.num_experts = 4, .num_slots = 4, .num_ranks = 2};
  const SlotList present = {0, 1, 2, 3};
  const std::vector<double> load = {12, 10, 9, 9};  // 22 to 18; 21 to 19 by a swap
  EXPECT_EQ(NumMoves(present, Improved(shape, load, present)), 2);
  EXPECT_EQ(NumMoves(present, Improved(shape, load, present, {.min_gain = 0.049})), 2);
  EXPECT_EQ(Improved(shape, load, present, {.min_gain = 0.051}), present);
  EXPECT_EQ(Improved(shape, load, present, {.good_enough = 0.1}), present);
  EXPECT_EQ(Improved(shape, load, present, {.slot_gain = 0.03}), present);
  EXPECT_EQ(Improved(shape, load, present, {.max_moves = 1}), present);
}

// 32 ranks, 288 slots for 256 experts, as skewed as DeepSeek-R1: what targets ask for.
constexpr int kLayers = 6;
const SlotShape kWide{.num_experts = 256, .num_slots = 288, .num_ranks = 32};

TEST(ImproveTargets, FirstPlacementIsLevel) {
  const LoadTrace trace{58, 256, {SyntheticLoads(58, 256, 1.2, 1).Popularity()}};
  for (int l = 0; l < trace.num_layers; ++l) {
    const SlotList list = Improved(kWide, trace.Layer(0, l), {});
    EXPECT_LE(ImbalanceOf(kWide, trace.Layer(0, l), list), 0.01) << "layer " << l;
    EXPECT_EQ(NumSameRankCopies(kWide, list), 0) << "layer " << l;
  }
}

// Counts of 12 steps, decayed.
std::vector<double> Recorded(SyntheticLoads& loads, int64_t draws) {
  std::vector<double> counts(static_cast<size_t>(kLayers) * 256);
  for (int step = 0; step < 12; ++step) {
    const std::vector<double> drawn = loads.Draw(draws);
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = 0.9 * counts[i] + drawn[i];
  }
  return counts;
}

// Updates under drift, each judged on a fresh step, beside what TensorRT-LLM's greedy plan gives.
struct DriftFigures {
  double rewritten = 0;  // share of slots an update
  double imbalance = 0;
  double greedy = 0;
};
DriftFigures FollowDrift(double drift) {
  constexpr int kUpdates = 6;
  constexpr int64_t kDraws = int64_t{4096} * 8 * 32;  // 4096 tokens a rank
  SyntheticLoads loads(kLayers, 256, 1.2, 5);
  std::vector<SlotList> lists(kLayers);
  DriftFigures figures;
  for (int update = 0; update <= kUpdates; ++update) {
    const LoadTrace trace{kLayers, 256, {Recorded(loads, kDraws), loads.Draw(kDraws)}};
    for (int l = 0; l < kLayers; ++l) {
      SlotList& list = lists[static_cast<size_t>(l)];
      const SlotList next = Improved(kWide, trace.Layer(0, l), list, {.min_gain = 0.02});
      if (update > 0) {
        const double n = kUpdates * kLayers;
        figures.rewritten += NumMoves(list, next) / (288 * n);
        figures.imbalance += ImbalanceOf(kWide, trace.Layer(1, l), next) / n;
        const auto greedy = PlanLayer(BalancePolicy::kTrtllm, kWide, trace.Layer(0, l), {});
        figures.greedy += ImbalanceOf(kWide, trace.Layer(1, l), *greedy) / n;
      }
      list = next;
    }
    loads.Drift(drift);
  }
  return figures;
}

TEST(ImproveTargets, StationaryLoadRewritesNothing) {
  const DriftFigures figures = FollowDrift(0);
  EXPECT_EQ(figures.rewritten, 0);
  EXPECT_LE(figures.imbalance, figures.greedy + 0.01);
}

TEST(ImproveTargets, DriftRewritesLittle) {
  const DriftFigures figures = FollowDrift(0.2);
  EXPECT_LE(figures.rewritten, 0.10);
  EXPECT_LE(figures.imbalance, figures.greedy + 0.02);
}

TEST(Improve, ByCostTakesLessTime) {
  // A small batch, where reading an expert's weights is what takes time.
  const ExpertCost cost{
      .tile_rows = 16, .seconds_per_row = 1e-8, .seconds_per_active_expert = 1e-5};
  ImproveOptions options{.slot_gain = 0, .cost = &cost, .tokens = 256};
  double by_tokens = 0;
  double by_cost = 0;
  const LoadTrace trace{kLayers, 256, {SyntheticLoads(kLayers, 256, 1.2, 9).Popularity()}};
  for (int l = 0; l < kLayers; ++l) {
    const std::span<const double> load = trace.Layer(0, l);
    const SlotList first = Improved(kWide, load, {});
    const SlotList timed = Improved(kWide, load, {}, options);
    by_tokens += LayerSeconds(cost, kWide, load, first, options.tokens);
    by_cost += LayerSeconds(cost, kWide, load, timed, options.tokens);
    EXPECT_EQ(Improved(kWide, load, timed, options), timed);
  }
  EXPECT_LT(by_cost, 0.95 * by_tokens);
}

}  // namespace
}  // namespace moebius::moe
