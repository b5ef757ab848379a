// Experts that move while requests run, and copies of them: the whole engine on ranks as threads
// gives the answers of one rank, bit by bit.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "rank/testing/moving_ranks.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {
namespace {

using testing::MovingOptions;
using testing::Parallel;

constexpr int kMovingRequests = 12;
constexpr int kV3Experts = 16;  // of tests/golden/deepseek_v3, in 2 of 3 layers

engine::RequestInput MovingInput(int i) {
  engine::RequestInput input = testing::InputOf(i, 2);
  if (i % 3 == 0) input.sampling.num_prompt_logprobs = 1;
  return input;
}

const std::vector<engine::TokenChunk>& OneRanksAnswers(const RankOptions& options) {
  static std::map<std::string, std::vector<engine::TokenChunk>> known;
  const bool is_dummy = options.load.load_format == model::LoadFormat::kDummy;
  std::vector<engine::TokenChunk>& answers = known[options.load.folder + (is_dummy ? "?" : "")];
  if (answers.empty()) {
    answers = testing::Ask(*testing::OneRank(options), kMovingRequests, MovingInput);
  }
  return answers;
}

void ExpectUnmoved(const RankOptions& options, int num_experts, int64_t num_plans = 8) {
  SCOPED_TRACE(ConfigName(options.parallel) + " " + options.load.folder);
  const auto& expected = OneRanksAnswers(options);
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << client.error().message();
  testing::ExpectUnmoved(**client, num_experts, num_plans, MovingInput, expected);
}

TEST(MovingThreads, AnswersStayThoseOfOneRank) {
  ExpectUnmoved(MovingOptions(Parallel(1, 4, 1, true), 20), kV3Experts);
  ExpectUnmoved(MovingOptions(Parallel(2, 2, 1, true), 18), kV3Experts);  // with empty places
  ExpectUnmoved(MovingOptions(Parallel(1, 2, 2, true), 16), kV3Experts);
}

TEST(MovingThreads, WithEveryRankGatheringAllTokensToo) {
  RankOptions options = MovingOptions(Parallel(1, 3, 1, true), 20);
  options.parallel.all2all_backend = layout::ExchangeBackend::kAllGatherReduceScatter;
  ExpectUnmoved(options, kV3Experts);
}

TEST(MovingThreads, OfOtherWeightsToo) {
  RankOptions dummy = MovingOptions(Parallel(1, 2, 1, true), 20);
  dummy.load.load_format = model::LoadFormat::kDummy;
  ExpectUnmoved(dummy, kV3Experts);
  ExpectUnmoved(MovingOptions(Parallel(1, 2, 1, true), 9, "tests/golden/llama4_nested"), 6);
}

// Several copies of an expert, all of whose answers are the same: deterministic sums are.
TEST(MovingThreads, CopiesThatStayGiveOneRanksAnswers) {
  for (const layout::ParallelConfig& parallel :
       {Parallel(1, 4, 1, true), Parallel(2, 2, 1, true), Parallel(1, 2, 2, true)}) {
    RankOptions options = MovingOptions(parallel, 22);
    options.online = {};
    const auto client = StartThreadRanks(options);
    ASSERT_TRUE(client) << client.error().message();
    testing::ExpectSameAnswers(testing::Ask(**client, kMovingRequests, MovingInput),
                               OneRanksAnswers(options));
    const moe::PlacementState state = (*client)->Placement();
    EXPECT_EQ(state.slots.num_slots, 22);
    EXPECT_FALSE(state.is_moving);
    EXPECT_EQ(state.epoch, 0);
  }
}

// Sums by rank: which copy a token takes depends on the token and its data-parallel rank, not on
// who else came: alone it gets the same bits.
TEST(MovingThreads, DefaultSumsOverCopiesThatStayNeverDiffer) {
  for (const layout::ParallelConfig& parallel :
       {Parallel(1, 4, 1, true), Parallel(2, 2, 1, true)}) {
    SCOPED_TRACE(ConfigName(parallel));
    RankOptions options = MovingOptions(parallel, 26);
    options.online = {};
    options.deterministic = false;
    const auto input_of = [&](int i) {
      engine::RequestInput input = MovingInput(i);
      input.data_parallel_rank = i % parallel.data_parallel_size;
      return input;
    };
    std::vector<engine::TokenChunk> together;
    std::vector<engine::TokenChunk> alone;
    {
      const auto client = StartThreadRanks(options);
      ASSERT_TRUE(client) << client.error().message();
      together = testing::Ask(**client, kMovingRequests, input_of);
    }
    const auto client = StartThreadRanks(options);
    ASSERT_TRUE(client) << client.error().message();
    for (int i = 0; i < kMovingRequests; ++i) {
      alone.push_back(testing::Ask(**client, 1, [&](int) { return input_of(i); }).front());
    }
    testing::ExpectSameAnswers(alone, together);
  }
}

}  // namespace
}  // namespace moebius::rank
