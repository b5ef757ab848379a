// The whole engine on many ranks, as threads, gives the answers of one rank, bit by bit.
#include "rank/thread_ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rank/testing/golden_ranks.h"

namespace moebius::rank {
namespace {

using engine::EngineClient;

using engine::TokenChunk;
using testing::GoldenOptions;
using testing::InputOf;
using testing::Parallel;

std::vector<TokenChunk> Ask(EngineClient& client, int num_requests) {
  return testing::Ask(client, num_requests, [](int i) { return InputOf(i); });
}

void ExpectOneRanksAnswers(const RankOptions& options) {
  constexpr int kRequests = 10;
  static std::map<std::string, std::vector<TokenChunk>> known;
  std::vector<TokenChunk>& expected = known[options.load.folder];
  if (expected.empty()) expected = Ask(*testing::OneRank(options), kRequests);
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << client.error().message();
  const std::vector<TokenChunk> answers = Ask(**client, kRequests);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, expected[i].tokens) << "request " << i;
    EXPECT_EQ(answers[i].logprobs, expected[i].logprobs) << "request " << i;
  }
}

TEST(ThreadRanks, TensorParallel) {
  ExpectOneRanksAnswers(GoldenOptions(Parallel(2, 1, 1, false)));
}

TEST(ThreadRanks, TensorAndExpertParallel) {
  ExpectOneRanksAnswers(GoldenOptions(Parallel(2, 1, 1, true)));
}

TEST(ThreadRanks, DataAndExpertParallel) {
  ExpectOneRanksAnswers(GoldenOptions(Parallel(1, 2, 1, true)));
  ExpectOneRanksAnswers(GoldenOptions(Parallel(1, 4, 1, true)));
}

TEST(ThreadRanks, DataParallelWithCutExperts) {
  ExpectOneRanksAnswers(GoldenOptions(Parallel(1, 2, 1, false)));
}

TEST(ThreadRanks, Pipeline) { ExpectOneRanksAnswers(GoldenOptions(Parallel(1, 1, 2, false))); }

TEST(ThreadRanks, AllAtOnce) { ExpectOneRanksAnswers(GoldenOptions(Parallel(2, 2, 2, true))); }

// What the ranks' cells and the counts of experts say once nothing moves any more.
struct Seen {
  std::vector<engine::RankLoad> loads;
  int64_t assignments = 0;
  int64_t expert_rows = 0;
  int64_t home_rows = 0;
  int64_t copy_rows = 0;
};

Seen LookWhenStill(const EngineClient& client) {
  Seen seen;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  int64_t num_steps = -1;
  int64_t assignments = -1;
  while (std::chrono::steady_clock::now() < deadline) {
    // Longer than the ranks' period of publishing.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    seen = {.loads = client.RankLoads()};
    const moe::ExpertStats experts = client.ExpertLoad();
    for (int layer = 0; layer < experts.num_layers(); ++layer) {
      for (const int64_t count : experts.Layer(layer)) seen.assignments += count;
    }
    int64_t steps = 0;
    for (const engine::RankLoad& load : seen.loads) {
      seen.expert_rows += load.num_expert_rows;
      seen.home_rows += load.num_home_rows;
      seen.copy_rows += load.num_copy_rows;
      steps += load.num_steps;
    }
    const bool is_still = std::exchange(num_steps, steps) == steps &&
                          std::exchange(assignments, seen.assignments) == seen.assignments;
    if (is_still) break;
  }
  return seen;
}

void ExpectPartsAddUp(const engine::RankLoad& load) {
  double sum = 0;
  for (const engine::StepPart& part : engine::kStepParts) {
    EXPECT_GE(load.parts.*part.seconds, 0) << part.name;
    sum += load.parts.*part.seconds;
  }
  EXPECT_NEAR(sum, load.seconds, 1e-6 * (load.seconds + 1));
}

TEST(ThreadRanks, EachRankSaysWhatItHasDone) {
  constexpr int64_t kExpertsAToken = 4;
  constexpr int64_t kMoeLayers = 2;
  constexpr int64_t kRowBytes = 128 * 2;  // bfloat16
  RankOptions options = GoldenOptions(Parallel(2, 2, 1, true));
  options.deterministic = false;
  std::mutex mutex;
  std::vector<engine::StepRecord> records;
  options.engine.on_step = [&](const engine::StepRecord& record) {
    const std::lock_guard lock(mutex);
    records.push_back(record);
    ASSERT_EQ(record.dp_rows.size(), 2u);
    EXPECT_EQ(record.dp_rows[static_cast<size_t>(record.dp_rank)],
              record.num_prefill_tokens + record.num_decode_tokens);
  };
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << client.error().message();
  Ask(**client, 7);
  const Seen seen = LookWhenStill(**client);
  const std::vector<engine::RankLoad>& loads = seen.loads;
  ASSERT_EQ(loads.size(), 4u);
  int64_t dispatch = 0;
  int64_t combine = 0;
  for (int rank = 0; rank < 4; ++rank) {
    SCOPED_TRACE(rank);
    const engine::RankLoad& load = loads[static_cast<size_t>(rank)];
    EXPECT_EQ(load.rank, rank);
    EXPECT_EQ(load.dp, rank / 2);
    EXPECT_EQ(load.tp, rank % 2);
    EXPECT_EQ(load.expert_rank, rank);
    // All ranks run all steps; those of a tensor-parallel group have the same rows.
    EXPECT_EQ(load.num_steps, loads[0].num_steps);
    EXPECT_EQ(load.num_latency_steps + load.num_throughput_steps, load.num_steps);
    EXPECT_EQ(load.last_step, loads[0].last_step);
    EXPECT_EQ(load.num_rows, loads[static_cast<size_t>(rank / 2 * 2)].num_rows);
    EXPECT_GT(load.parts.attention, 0);
    EXPECT_GT(load.parts.dispatch, 0);
    EXPECT_GT(load.parts.experts, 0);
    EXPECT_GT(load.parts.combine, 0);
    EXPECT_GT(load.parts.wait, 0);
    EXPECT_EQ(load.parts.sampling > 0, rank % 2 == 0);
    ExpectPartsAddUp(load);
    dispatch += load.dispatch_bytes;
    combine += load.combine_bytes;
  }
  const int64_t rows = loads[0].num_rows + loads[2].num_rows;
  EXPECT_EQ(seen.assignments, rows * kExpertsAToken * kMoeLayers);
  EXPECT_EQ(seen.expert_rows, seen.assignments);
  const std::vector<moe::ExpertStats> by_rank = (*client)->ExpertLoadByRank();
  ASSERT_EQ(by_rank.size(), 4u);
  moe::ExpertStats sum;
  for (const moe::ExpertStats& stats : by_rank) sum.Add(stats);
  EXPECT_TRUE(std::ranges::equal(sum.Layer(1), (*client)->ExpertLoad().Layer(1)));
  EXPECT_GT(seen.home_rows, 0);
  EXPECT_LT(seen.home_rows, seen.expert_rows);
  // A token goes once to each other rank that has any of its experts, and one row comes back.
  EXPECT_EQ(dispatch, combine);
  EXPECT_GT(dispatch, 0);
  EXPECT_EQ(dispatch % kRowBytes, 0);
  EXPECT_LE(dispatch, rows * kMoeLayers * 3 * kRowBytes);

  int64_t num_observed = 0;
  const std::lock_guard lock(mutex);
  for (const engine::StepRecord& record : records) {
    EXPECT_TRUE(record.dp_rank == 0 || record.dp_rank == 1);
    EXPECT_NE(record.exchange_mode, 0);
    num_observed += record.num_prefill_tokens + record.num_decode_tokens;
  }
  EXPECT_EQ(num_observed, rows);
}

// Without tensor parallelism a copy at home serves all of a rank's tokens that want its expert.
TEST(ThreadRanks, WhatIsServedAtHomeIsCounted) {
  constexpr int kNumExperts = 16;
  RankOptions options = GoldenOptions(Parallel(1, 4, 1, true));
  options.slots.num_slots = 22;
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << client.error().message();
  Ask(**client, 7);
  const Seen seen = LookWhenStill(**client);
  const std::vector<int32_t> slots = moe::LinearSlots(kNumExperts, 4, 22);
  const std::vector<moe::ExpertStats> by_rank = (*client)->ExpertLoadByRank();
  int64_t at_home = 0;
  int64_t by_copy = 0;
  for (size_t rank = 0; rank < 4; ++rank) {
    const auto own = std::span(slots).subspan(rank * slots.size() / 4, slots.size() / 4);
    for (int layer = 0; layer < by_rank[rank].num_layers(); ++layer) {
      for (int32_t expert = 0; expert < kNumExperts; ++expert) {
        if (std::ranges::count(own, expert) == 0) continue;
        const int64_t tokens = by_rank[rank].Layer(layer)[static_cast<size_t>(expert)];
        at_home += tokens;
        if (std::ranges::count(slots, expert) > 1) by_copy += tokens;
      }
    }
  }
  EXPECT_EQ(seen.home_rows, at_home);
  EXPECT_EQ(seen.copy_rows, by_copy);
  EXPECT_GT(by_copy, 0);
  EXPECT_LT(by_copy, at_home);
}

TEST(ThreadRanks, StepsWithoutTokensAreCounted) {
  RankOptions options = GoldenOptions(Parallel(1, 2, 1, true));
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << client.error().message();
  Ask(**client, 1);
  const Seen seen = LookWhenStill(**client);
  const int worker = seen.loads[0].num_rows > 0 ? 0 : 1;
  const engine::RankLoad& busy = seen.loads[static_cast<size_t>(worker)];
  const engine::RankLoad& other = seen.loads[static_cast<size_t>(1 - worker)];
  EXPECT_GT(busy.num_steps, 5);
  EXPECT_EQ(busy.num_empty_steps, 0);
  EXPECT_EQ(other.num_steps, busy.num_steps);
  EXPECT_EQ(other.num_empty_steps, other.num_steps);
  EXPECT_EQ(other.num_rows, 0);
  EXPECT_GT(other.num_expert_rows, 0) << "its experts served the other's tokens";
  EXPECT_EQ(other.dispatch_bytes, 0);
  EXPECT_GT(other.combine_bytes, 0);
}

// Ranks with equal work take the same steps: none joins one of its peers while its own engine is
// about to plan.
TEST(ThreadRanks, EqualWorkTakesNoMoreSteps) {
  constexpr int kRanks = 4;
  constexpr int64_t kTokens = 40;
  int64_t most = 0;
  // A machine that stops whoever submits, or whoever plans, makes work unequal: one good try of all
  // that fit into a minute is enough.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  do {
    const auto client = StartThreadRanks(GoldenOptions(Parallel(1, kRanks, 1, true)));
    ASSERT_TRUE(client) << client.error().message();
    testing::Ask(**client, 2 * kRanks, [&](int i) {
      engine::RequestInput input = InputOf(0);
      input.data_parallel_rank = i % kRanks;
      input.sampling.max_tokens = static_cast<int32_t>(kTokens);
      return input;
    });
    most = 0;
    for (const engine::RankLoad& load : LookWhenStill(**client).loads) {
      EXPECT_GE(load.num_steps, kTokens);
      most = std::max(most, load.num_steps);
    }
    if (most <= kTokens + kTokens / 4) return;
  } while (std::chrono::steady_clock::now() < deadline);
  FAIL() << most << " steps for " << kTokens << " tokens of each";
}

TEST(ThreadRanks, StagesAndCutExpertsAreCountedToo) {
  for (const auto& parallel : {Parallel(1, 1, 2, false), Parallel(1, 2, 1, false)}) {
    RankOptions options = GoldenOptions(parallel);
    const auto client = StartThreadRanks(options);
    ASSERT_TRUE(client) << client.error().message();
    Ask(**client, 3);
    const Seen seen = LookWhenStill(**client);
    int64_t rows = 0;
    for (const engine::RankLoad& load : seen.loads) {
      EXPECT_EQ(load.expert_rank, -1);
      EXPECT_EQ(load.num_latency_steps, 0);
      EXPECT_GT(load.num_expert_rows, 0);
      EXPECT_GT(load.parts.experts, 0);
      ExpectPartsAddUp(load);
      if (load.pp == 0) rows += load.num_rows;
    }
    EXPECT_EQ(seen.assignments, rows * 4 * 2);
  }
}

TEST(ThreadRanks, SixtyFourRanksOf256Experts) {
  RankOptions options = GoldenOptions(Parallel(1, 64, 1, true), "bench/configs/moe-3b");
  options.load.load_format = model::LoadFormat::kDummy;
  options.load.hf_overrides = R"({"num_experts": 256, "num_hidden_layers": 3, "hidden_size": 64,
      "moe_intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
      "head_dim": 16, "vocab_size": 64, "dtype": "float32"})";
  ExpectOneRanksAnswers(options);
}

}  // namespace
}  // namespace moebius::rank
