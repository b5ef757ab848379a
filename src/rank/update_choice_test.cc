#include "rank/update_choice.h"

#include <gtest/gtest.h>

#include "rank/balance_ranks_test.h"

namespace moebius::rank {
namespace {

constexpr moe::SlotShape kSlots{.num_experts = 8, .num_slots = 8, .num_ranks = 4};

// Counts of layers whose first `hot` experts get ten times as much.
moe::ExpertStats CountsOf(const std::vector<int>& hot, int64_t tokens) {
  moe::ExpertStats stats(static_cast<int>(hot.size()), kSlots.num_experts);
  for (size_t i = 0; i < hot.size() * 8; ++i) {  // those of prompts, after these, stay 0
    stats.counts()[i] = tokens * (static_cast<int>(i % 8) < hot[i / 8] ? 10 : 1);
  }
  return stats;
}

std::vector<int> StagedByRank(const BalanceLayout& layout,
                              const std::vector<LayerUpdate>& updates) {
  std::vector<int> staged(8);
  for (const LayerUpdate& update : updates) {
    const moe::SlotList& present = layout.experts[static_cast<size_t>(update.layer)];
    for (size_t p = 0; p < present.size(); ++p) {
      if (update.experts[p] == present[p]) continue;
      ++staged[static_cast<size_t>(layout.WorldRankOf(update.layer, static_cast<int>(p)))];
    }
  }
  return staged;
}

TEST(UpdateChoice, TheLayersThatGainMost) {
  const BalanceLayout layout = testing::LayoutOf(kSlots, 3);
  UpdateChoice choice(layout, {.layer_updates_per_iter = 1, .num_staging = 4});
  // Layer 0 is even, layer 1 has one rank with two hot experts, layer 2 one with a single one,
  // which no exchange makes lighter by much.
  choice.AddWindow(CountsOf({0, 2, 1}, 1000), 10);
  const std::vector<LayerUpdate> updates = choice.Choose();
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(updates[0].layer, 1);
  EXPECT_GT(choice.Accept(updates), 0);
  choice.AddWindow(CountsOf({0, 2, 1}, 2000), 20);
  for (const LayerUpdate& update : choice.Choose()) EXPECT_NE(update.layer, 0);
}

TEST(UpdateChoice, NothingOfTooFewTokensOrTooLittleGain) {
  const BalanceLayout layout = testing::LayoutOf(kSlots, 1);
  UpdateChoice choice(layout, {.num_staging = 4, .min_tokens_per_expert = 100});
  choice.AddWindow(CountsOf({2}, 10), 1);  // 260 tokens, of 800
  EXPECT_TRUE(choice.Choose().empty());
  choice.AddWindow(CountsOf({2}, 20), 2);
  EXPECT_TRUE(choice.Choose().empty());
  choice.AddWindow(CountsOf({2}, 40), 4);
  EXPECT_FALSE(choice.Choose().empty());
  UpdateChoice reluctant(layout, {.num_staging = 4, .min_gain = 100});
  reluctant.AddWindow(CountsOf({2}, 1000), 10);
  EXPECT_TRUE(reluctant.Choose().empty());
}

TEST(UpdateChoice, NoRankStagesMoreThanItCan) {
  const BalanceLayout layout = testing::LayoutOf(kSlots, 4);
  for (const bool is_random : {false, true}) {
    for (const int num_staging : {1, 2, 5}) {
      UpdateChoice choice(layout, {.layer_updates_per_iter = 4,
                                   .num_staging = num_staging,
                                   .is_random = is_random,
                                   .seed = 3});
      choice.AddWindow(CountsOf({2, 2, 2, 2}, 1000), 10);
      const std::vector<LayerUpdate> updates = choice.Choose();
      for (const int staged : StagedByRank(layout, updates)) EXPECT_LE(staged, num_staging);
      EXPECT_TRUE(is_random || updates.size() >= static_cast<size_t>(std::min(num_staging, 2)));
    }
  }
}

TEST(UpdateChoice, OldLoadFades) {
  const BalanceLayout layout = testing::LayoutOf(kSlots, 1);
  UpdateChoice choice(layout, {.num_staging = 4, .decay = 0.1});
  moe::ExpertStats counts = CountsOf({2}, 1000);
  int64_t num_steps = 10;
  choice.AddWindow(counts, num_steps);
  const std::vector<LayerUpdate> first = choice.Choose();
  ASSERT_FALSE(first.empty());
  const auto look = [&](int64_t tokens) {
    for (int64_t& count : counts.counts()) count += tokens;
    choice.AddWindow(counts, num_steps += 10);
    return choice.Choose();
  };
  // Too few for a window: they add up and nothing fades.
  for (int window = 0; window < 5; ++window) {
    const std::vector<LayerUpdate> again = look(10);
    ASSERT_EQ(again.size(), 1U);
    EXPECT_EQ(again[0].experts, first[0].experts);
  }
  EXPECT_FALSE(look(1000).empty());  // a tenth of the first load is still as much
  for (int window = 0; window < 3; ++window) look(1000);
  EXPECT_TRUE(look(1000).empty()) << "it is even by now";
}

TEST(UpdateChoice, WhatFoundNoRoomOrWasDroppedIsNotCountedAgain) {
  const BalanceLayout layout = testing::LayoutOf(kSlots, 3);
  UpdateChoice choice(layout, {.layer_updates_per_iter = 1, .num_staging = 4});
  const moe::ExpertStats counts = CountsOf({2, 2, 2}, 1000);
  choice.AddWindow(counts, 10);
  const std::vector<LayerUpdate> dropped = choice.Choose();
  ASSERT_EQ(dropped.size(), 1U);
  // Nothing more is counted: each layer has its turn all the same, the dropped one first.
  std::vector<bool> is_changed(3);
  for (int plan = 0; plan < 3; ++plan) {
    choice.AddWindow(counts, 20 + plan);
    const std::vector<LayerUpdate> updates = choice.Choose();
    ASSERT_EQ(updates.size(), 1U);
    if (plan == 0) {
      EXPECT_EQ(updates[0].layer, dropped[0].layer);
    }
    EXPECT_FALSE(is_changed[static_cast<size_t>(updates[0].layer)]);
    is_changed[static_cast<size_t>(updates[0].layer)] = true;
    choice.Accept(updates);
  }
  choice.AddWindow(counts, 30);
  EXPECT_TRUE(choice.Choose().empty()) << "what has changed is looked at anew by new tokens";
}

TEST(UpdateChoice, PlansByTheTimeOfAStepOfMeanSize) {
  // Experts 0 and 1, on rank 0, get ten times as many tokens as others. Reading an expert's weights
  // takes as long as 1000 rows.
  const BalanceLayout layout = testing::LayoutOf(kSlots, 1);
  const auto plan = [&](int64_t num_steps, double seconds_per_active_expert) {
    UpdateChoice choice(layout, {.num_staging = 4,
                                 .cost = {.seconds_per_row = 1,
                                          .seconds_per_active_expert = seconds_per_active_expert}});
    choice.AddWindow(CountsOf({2}, 1000), num_steps);  // 26000 rows
    return choice.Choose();
  };
  EXPECT_FALSE(plan(2, 1000).empty()) << "13000 rows a step: those of the hot experts count";
  EXPECT_TRUE(plan(200, 1000).empty()) << "130 rows a step: all weights are read all the same";
  EXPECT_FALSE(plan(200, 0).empty()) << "tokens alone";
}

TEST(UpdateChoice, RandomPlansKeepEveryExpert) {
  moe::SlotShape slots = kSlots;
  slots.num_slots = 10;
  const BalanceLayout layout = testing::LayoutOf(slots, 2);
  UpdateChoice choice(
      layout, {.layer_updates_per_iter = 2, .num_staging = 3, .is_random = true, .seed = 5});
  int num_plans = 0;
  for (int i = 0; i < 200; ++i) {
    const std::vector<LayerUpdate> updates = choice.Choose();
    num_plans += updates.empty() ? 0 : 1;
    for (const LayerUpdate& update : updates) {
      std::vector<int> copies(8);
      for (const int32_t expert : update.experts) {
        if (expert >= 0) ++copies[static_cast<size_t>(expert)];
      }
      EXPECT_EQ(std::ranges::count(copies, 0), 0);
      EXPECT_EQ(moe::NumSameRankCopies(slots, update.experts), 0);
    }
    choice.Accept(updates);
  }
  EXPECT_GT(num_plans, 100);
}

}  // namespace
}  // namespace moebius::rank
