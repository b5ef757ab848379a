// What tests of ranks whose experts move share: options that force moves all the time, and the
// answers that must not notice.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "moe/placement.h"
#include "rank/testing/golden_ranks.h"

namespace moebius::rank::testing {

// Deterministic; random swaps after every second step, with some slots more than experts.
inline RankOptions MovingOptions(const layout::ParallelConfig& parallel, int64_t num_slots,
                                 const std::string& folder = "tests/golden/deepseek_v3") {
  RankOptions options = GoldenOptions(parallel, folder);
  options.engine.num_kv_blocks = 256;
  options.slots.num_slots = num_slots;
  options.online = {.layer_updates_per_iter = 2, .step_interval = 2, .is_random = true};
  return options;
}

// As many slots as there shall be, in which every expert has one.
inline void ExpectLegal(const moe::PlacementState& state, int num_experts) {
  ASSERT_FALSE(state.slots.layers.empty());
  for (const std::vector<int32_t>& layer : state.slots.layers) {
    EXPECT_EQ(std::ranges::count_if(layer, [](int32_t expert) { return expert >= 0; }),
              state.slots.num_slots);
    const auto placement = moe::Placement::Create(num_experts, layer);
    EXPECT_TRUE(placement) << placement.error().message();
  }
}

inline void ExpectSameAnswers(const std::vector<engine::TokenChunk>& answers,
                              const std::vector<engine::TokenChunk>& expected) {
  ASSERT_EQ(answers.size(), expected.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, expected[i].tokens) << "request " << i;
    EXPECT_EQ(answers[i].logprobs, expected[i].logprobs) << "request " << i;
    EXPECT_EQ(answers[i].prompt_logprobs, expected[i].prompt_logprobs) << "request " << i;
  }
}

// Asks the same again and again until so many plans were committed: every time it is `expected`.
inline void ExpectUnmoved(engine::EngineClient& client, int num_experts, int64_t num_plans,
                          const std::function<engine::RequestInput(int)>& input_of,
                          const std::vector<engine::TokenChunk>& expected) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  moe::PlacementState state = client.Placement();
  EXPECT_TRUE(state.is_moving);
  ExpectLegal(state, num_experts);
  const std::vector<std::vector<int32_t>> start = state.slots.layers;
  // A plan is counted before its epoch is there.
  while ((state.moves.num_committed < num_plans || state.epoch < num_plans) &&
         std::chrono::steady_clock::now() < deadline) {
    ExpectSameAnswers(Ask(client, static_cast<int>(expected.size()), input_of), expected);
    state = client.Placement();
    ExpectLegal(state, num_experts);
    if (::testing::Test::HasFailure()) break;
  }
  EXPECT_GE(state.moves.num_committed, num_plans) << state.moves.last_drop;
  EXPECT_GE(state.epoch, num_plans);
  EXPECT_GE(state.moves.num_slots, state.moves.num_committed);
  EXPECT_GT(state.moves.from_peer, 0);
  EXPECT_EQ(state.moves.num_corrupt, 0);
  EXPECT_NE(state.slots.layers, start);
}

}  // namespace moebius::rank::testing
