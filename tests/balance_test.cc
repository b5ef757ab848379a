// Experts that move between ranks as processes, while requests run: one rank's answers. Slow (all
// but Balance.Moving*): the trained model over 8 ranks, with and without balancing.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "rank/process_ranks.h"
#include "rank/rank_process.h"
#include "rank/testing/moving_ranks.h"

namespace moebius::rank {
namespace {

using testing::MovingOptions;
using testing::Parallel;

engine::RequestInput BalanceInput(int i) {
  engine::RequestInput input = testing::InputOf(i, 2);
  if (i % 3 == 0) input.sampling.num_prompt_logprobs = 1;
  return input;
}

void ExpectUnmoved(const RankOptions& options, int64_t num_plans = 8) {
  constexpr int kExperts = 16;
  constexpr int kRequests = 12;
  SCOPED_TRACE(ConfigName(options.parallel));
  static const std::vector<engine::TokenChunk> expected =
      testing::Ask(*testing::OneRank(options), kRequests, BalanceInput);
  const auto client = ProcessRanks::Start(options);
  ASSERT_TRUE(client) << client.error().message();
  testing::ExpectUnmoved(**client, kExperts, num_plans, BalanceInput, expected);
  EXPECT_TRUE((*client)->Health());
}

TEST(Balance, MovingExpertsChangeNoAnswer) {
  ExpectUnmoved(MovingOptions(Parallel(1, 4, 1, true), 20));
  ExpectUnmoved(MovingOptions(Parallel(2, 2, 1, true), 18));
  ExpectUnmoved(MovingOptions(Parallel(1, 2, 2, true), 16));
}

TEST(Balance, MovingExpertsOfRanksThatGatherTokens) {
  RankOptions options = MovingOptions(Parallel(1, 2, 1, true), 20);
  options.parallel.all2all_backend = layout::ExchangeBackend::kAllGatherReduceScatter;
  ExpectUnmoved(options);
}

// The demo, prompts of which each begins like others.
engine::RequestInput DemoInput(int i) {
  engine::RequestInput input;
  for (int t = 0; t < 4 + 7 * i % 45; ++t) {
    input.prompt.push_back(static_cast<TokenId>((31 * t + 101 * (i % 50)) % 8000));
  }
  input.sampling.max_tokens = 8 + i % 9;
  input.sampling.temperature = i % 2 == 0 ? 0.0F : 0.9F;
  input.sampling.seed = i;
  input.sampling.num_logprobs = 2;
  input.sampling.ignore_eos = true;
  return input;
}

TEST(BalanceSlow, AThousandRequestsOnTheDemoNoticeNothing) {
  constexpr int kRequests = 1000;
  constexpr int kExperts = 32;
  const auto backend = kernels::ChooseBackend();
  ASSERT_TRUE(backend) << backend.error().message();
  RankOptions options = MovingOptions(Parallel(1, 8, 1, true), 40, "models/demo");
  options.load.backend = *backend;
  options.engine.max_model_len = 128;
  options.engine.max_num_batched_tokens = 64;
  options.engine.max_num_seqs = 16;
  options.engine.num_kv_blocks = 1024;
  const moe::SlotAssignment slots = std::exchange(options.slots, {});
  const moe::OnlineBalance online = std::exchange(options.online, {});
  std::vector<engine::TokenChunk> off;
  for (const char* mode : {"off", "static", "online"}) {
    SCOPED_TRACE(mode);
    const bool is_online = mode == std::string("online");
    if (mode != std::string("off")) options.slots = slots;
    if (is_online) options.online = online;
    const auto client = ProcessRanks::Start(options);
    ASSERT_TRUE(client) << client.error().message();
    if (!is_online) {
      const auto answers = testing::Ask(**client, kRequests, DemoInput);
      if (off.empty()) {
        off = answers;
      } else {
        testing::ExpectSameAnswers(answers, off);
      }
      continue;
    }
    testing::ExpectUnmoved(**client, kExperts, 30, DemoInput, off);
    const moe::BalanceStatus moves = (*client)->Placement().moves;
    fmt::print("{} plans committed, {} dropped, {} slots rewritten\n", moves.num_committed,
               moves.num_dropped, moves.num_slots);
  }
}

}  // namespace

int Main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (!args.empty() && args[0] == kRankProcessCommand) return RankProcessMain(args);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace moebius::rank

int main(int argc, char** argv) { return moebius::rank::Main(argc, argv); }
