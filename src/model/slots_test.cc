// Several slots an expert, wherever they lie: ranks as threads give the bits of one rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "model/testing/random_models.h"
#include "model/testing/shard_case.h"

namespace moebius::model {
namespace {

const std::vector<GroupLayout> kSlotLayouts = {
    {.dp = 2, .ep = true},
    {.dp = 3, .ep = true, .max_moe_rows = 2},
    {.tp = 2, .dp = 2, .ep = true},
    {.dp = 2, .pp = 2, .ep = true},
};

// `experts` in the order of slots, over the places that linear slots fill.
std::vector<int32_t> Filled(const std::vector<int32_t>& experts, int64_t num_experts,
                            int num_ranks) {
  std::vector<int32_t> places = moe::LinearSlots(num_experts, num_ranks, std::ssize(experts));
  auto next = experts.begin();
  for (int32_t& place : places) {
    if (place >= 0) place = *next++;
  }
  EXPECT_EQ(next, experts.end());
  return places;
}

// Each expert once, those after `num_experts` drawn: in an order that no rank's slots follow.
moe::SlotAssignment Shuffled(int64_t num_slots, int64_t num_experts, int num_ranks,
                             int num_layers) {
  moe::SlotAssignment slots{.num_slots = num_slots, .layers = {}};
  std::minstd_rand random(static_cast<uint32_t>(num_slots * 31 + num_ranks));
  for (int layer = 0; layer < num_layers; ++layer) {
    std::vector<int32_t> experts(static_cast<size_t>(num_slots));
    std::iota(experts.begin(), experts.end(), 0);
    for (size_t s = static_cast<size_t>(num_experts); s < experts.size(); ++s) {
      experts[s] = static_cast<int32_t>(random() % static_cast<uint32_t>(num_experts));
    }
    std::ranges::shuffle(experts, random);
    slots.layers.push_back(Filled(experts, num_experts, num_ranks));
  }
  return slots;
}

// Two copies of each expert, side by side: mostly on one rank.
moe::SlotAssignment Doubled(int64_t num_experts, int num_ranks) {
  std::vector<int32_t> experts;
  for (int32_t e = 0; e < num_experts; ++e) experts.insert(experts.end(), {e, e});
  // Of the first layer; the others are linear.
  return {.num_slots = 2 * num_experts, .layers = {Filled(experts, num_experts, num_ranks)}};
}

std::vector<moe::SlotAssignment> Assignments(const ModelConfig& config, int num_ranks) {
  const int64_t experts = config.moe.num_experts;
  const auto num_layers = static_cast<int>(
      std::ranges::count_if(config.layers, [](const LayerConfig& layer) { return layer.moe; }));
  return {{.num_slots = experts + 1, .layers = {}},
          {.num_slots = 2 * experts, .layers = {}},
          Shuffled(experts, experts, num_ranks, num_layers),
          Shuffled(experts + num_ranks, experts, num_ranks, num_layers),
          Shuffled(2 * experts + 1, experts, num_ranks, num_layers),
          Doubled(experts, num_ranks)};
}

void ExpectSameBitsInAnySlots(LoadOptions options) {
  options.backend = kernels::AvailableBackends().front();
  options.show_progress = false;
  const ShardCase shown(std::move(options));
  for (GroupLayout layout : kSlotLayouts) {
    if (!shown.Allows(layout)) continue;
    for (const moe::SlotAssignment& slots : Assignments(shown.config(), layout.tp * layout.dp)) {
      layout.slots = slots;
      shown.ExpectSameBits(layout);
      if (testing::Test::HasFailure()) return;
    }
  }
  // Which it compared, too: those of prompts are some of all.
  const std::vector<int64_t>& counts = shown.counts();
  const auto middle = counts.begin() + std::ssize(counts) / 2;
  const int64_t all = std::accumulate(counts.begin(), middle, int64_t{0});
  const int64_t of_prompts = std::accumulate(middle, counts.end(), int64_t{0});
  EXPECT_GT(of_prompts, 0);
  EXPECT_LT(of_prompts, all);
}

TEST(Slots, AnyPlacementGivesTheBitsOfOneRank) {
  for (const char* name : {"deepseek_v3", "llama4_nested", "qwen3_moe_old", "mixtral_window"}) {
    SCOPED_TRACE(name);
    LoadOptions options;
    options.folder = std::string(MOEBIUS_SOURCE_DIR "/tests/golden/") + name;
    ExpectSameBitsInAnySlots(std::move(options));
  }
}

TEST(Slots, OfRandomWeightsToo) {
  for (const RandomModel& model : kRandomModels) {
    if (std::string(model.name) == "llama") continue;
    SCOPED_TRACE(model.name);
    const TempFolder folder;
    ExpectSameBitsInAnySlots(Dummy(folder, model.config));
  }
}

}  // namespace
}  // namespace moebius::model
