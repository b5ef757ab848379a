#include "rank/balance_agent.h"

#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <random>
#include <thread>

#include "base/log.h"
#include "rank/balance_ranks_test.h"

namespace moebius::rank {
namespace {

using std::chrono::milliseconds;
using testing::BalancedRanks;
using testing::LayoutOf;

// Experts of the layer that turn by `by` places among those that are not empty.
moe::SlotList Turned(const moe::SlotList& experts, size_t by) {
  std::vector<int32_t> held;
  for (const int32_t expert : experts) {
    if (expert >= 0) held.push_back(expert);
  }
  moe::SlotList turned = experts;
  for (size_t p = 0, i = 0; p < turned.size(); ++p) {
    if (turned[p] >= 0) turned[p] = held[(i++ + by) % held.size()];
  }
  return turned;
}

TEST(BalanceAgent, APlanIsFetchedAndThenFlippedTo) {
  for (const int num_ranks : {2, 3, 8}) {
    const BalanceLayout layout =
        LayoutOf({.num_experts = 16, .num_slots = 20, .num_ranks = num_ranks}, 3);
    BalancedRanks ranks({.layout = layout, .num_staging = 20});
    ranks.Start();
    const BalanceBoard board = ranks.board();
    std::vector<moe::SlotList> lists = layout.experts;
    lists[0] = Turned(lists[0], 1);
    lists[2] = Turned(lists[2], 7);
    board.Publish({.number = 1, .updates = {{0, lists[0]}, {2, lists[2]}}});
    ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(1); }))
        << board.CellOf(0).reason.Get();
    EXPECT_TRUE(ranks.AllAsListed(layout.experts)) << "nothing shows before the flip";
    EXPECT_EQ(ranks.agent(1)->Committable(), 0U);
    EXPECT_FALSE(ranks.agent(1)->Flip(1)) << "it is not committed";
    board.Commit(1);
    EXPECT_EQ(ranks.agent(1)->Committable(), 1U);
    ranks.FlipAll(1);
    EXPECT_TRUE(ranks.AllAsListed(lists));
    const moe::BalanceStatus status = board.ReadStatus();
    EXPECT_EQ(status.epoch, 1U);
    EXPECT_GT(status.from_peer, 0);
    EXPECT_GE(status.num_bytes, status.from_peer * static_cast<int64_t>(testing::kExpertBytes));
    EXPECT_EQ(status.from_checkpoint, 0);

    // Back again: what moves comes from where it is now.
    board.Publish({.number = 2, .updates = {{0, layout.experts[0]}, {2, layout.experts[2]}}});
    ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(2); }));
    board.Commit(2);
    ranks.FlipAll(2);
    EXPECT_TRUE(ranks.AllAsListed(layout.experts));
  }
}

TEST(BalanceAgent, ADroppedPlanLeavesThingsAsTheyWere) {
  const BalanceLayout layout = LayoutOf({.num_experts = 8, .num_slots = 8, .num_ranks = 4}, 1);
  BalancedRanks ranks({.layout = layout});
  ranks.Start();
  const BalanceBoard board = ranks.board();
  for (uint64_t number = 1; number <= 20; ++number) {
    board.Publish({.number = number, .updates = {{0, Turned(layout.experts[0], number)}}});
    if (number % 2 == 0) {  // else somewhere on the way
      ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(number); }));
    }
    board.Drop(number);
    ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReleased(number); }));
    EXPECT_TRUE(ranks.AllAsListed(layout.experts));
  }
  EXPECT_FALSE(ranks.agent(0)->Flip(20));
  const moe::SlotList last = Turned(layout.experts[0], 3);
  board.Publish({.number = 21, .updates = {{0, last}}});
  ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(21); }));
  board.Commit(21);
  ranks.FlipAll(21);
  EXPECT_TRUE(ranks.AllAsListed({last}));
}

TEST(BalanceAgent, EmptyPlacesAndExpertsOfTheSameRankNeedNoPeer) {
  // Five slots on two ranks: the second has an empty place.
  BalanceLayout layout = LayoutOf({.num_experts = 4, .num_slots = 5, .num_ranks = 2}, 1);
  BalancedRanks ranks({.layout = layout});
  ranks.Start();
  ASSERT_EQ(layout.experts[0], (moe::SlotList{0, 1, 2, 3, 0, -1}));
  const moe::SlotList next{1, 0, 2, 3, -1, -1};
  ranks.board().Publish({.number = 1, .updates = {{0, next}}});
  ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(1); }));
  ranks.board().Commit(1);
  ranks.FlipAll(1);
  EXPECT_TRUE(ranks.AllAsListed({next}));
  EXPECT_EQ(ranks.board().ReadStatus().from_same_rank, 2);
  EXPECT_EQ(ranks.board().ReadStatus().num_bytes, 0);
}

TEST(BalanceAgent, FetchesNoFasterThanItMay) {
  // Of each other, and of the same rank.
  for (const int num_ranks : {2, 1}) {
    const BalanceLayout layout =
        LayoutOf({.num_experts = 2, .num_slots = 2, .num_ranks = num_ranks}, 1);
    BalancedRanks ranks({.layout = layout, .bytes_per_second = 100'000});
    ranks.Start();
    const auto begin = comm::Clock::now();
    ranks.board().Publish({.number = 1, .updates = {{0, {1, 0}}}});
    ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(1); }));
    // 4096 + 4096 + 1808 bytes; the last piece's time need not be over.
    EXPECT_GE(comm::Clock::now() - begin, milliseconds(80));
  }
}

TEST(BalanceAgent, DoesNothingBeforeItsStart) {
  BalancedRanks ranks({.layout = testing::FourRanks()});
  for (int rank = 0; rank < ranks.size(); ++rank) ranks.StartRank(rank, /*starts=*/rank != 2);
  ranks.board().Publish({.number = 1, .updates = {{0, testing::kAfter}}});
  ASSERT_TRUE(BalancedRanks::Comes([&] {
    return ranks.board().CellOf(0).ready.load() == 1 && ranks.board().CellOf(3).ready.load() == 1;
  }));
  EXPECT_EQ(ranks.board().CellOf(2).ready.load(), 0U);
  ranks.agent(2).reset();
}

// Ranks with device threads that take steps together, each with the least epoch that any of them
// may have, while a planner moves experts all the time. is_enough: asked between steps.
void TakeStepsUntil(BalancedRanks& ranks, std::atomic<int64_t>& num_steps,
                    const std::function<bool()>& is_enough) {
  std::atomic<uint64_t> epoch{0};
  std::atomic<bool> is_over{false};
  std::atomic<int> num_wrong{0};
  const auto deadline = testing::In(5 * testing::kOneMinute);  // of what hangs
  std::barrier together(ranks.size());
  const auto device = [&](int rank) {
    BalanceAgent& agent = *ranks.agent(rank);
    while (true) {
      together.arrive_and_wait();
      uint64_t least = epoch.load();
      const uint64_t mine = agent.Committable();
      while (mine < least && !epoch.compare_exchange_weak(least, mine)) {
      }
      together.arrive_and_wait();
      if (is_over.load()) return;
      if (!agent.Flip(epoch.load()) || !ranks.store(rank).IsAsListed()) ++num_wrong;
      together.arrive_and_wait();
      if (rank == 0) {
        ++num_steps;
        is_over = is_enough() || comm::Clock::now() > deadline;
        epoch = ~uint64_t{0};
      }
    }
  };
  epoch = ~uint64_t{0};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks.size(); ++rank) threads.emplace_back(device, rank);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong.load(), 0);
  EXPECT_TRUE(is_enough());
}

void TakeStepsUntil(BalancedRanks& ranks, std::atomic<int64_t>& num_steps, int64_t num_plans) {
  TakeStepsUntil(ranks, num_steps,
                 [&] { return ranks.board().ReadStatus().num_committed >= num_plans; });
}

TEST(BalanceAgent, RandomPlansWhileStepsRun) {
  // Two pipeline stages of four ranks, two layers each; ten slots for eight experts.
  std::atomic<int64_t> num_steps{0};
  const BalanceLayout layout = LayoutOf({.num_experts = 8, .num_slots = 10, .num_ranks = 4}, 4, 2);
  RebalancerOptions planner{
      .choice = {.layer_updates_per_iter = 3, .num_staging = 3, .is_random = true, .seed = 7},
      .step_interval = 2,
      .load = [] { return moe::ExpertStats(); },
      .num_steps = [&] { return num_steps.load(); }};
  planner.period = milliseconds(1);
  BalancedRanks ranks(
      {.layout = layout, .num_stages = 2, .num_staging = 3, .planner = std::move(planner)});
  ranks.Start();
  TakeStepsUntil(ranks, num_steps, 60);
  const moe::BalanceStatus status = ranks.board().ReadStatus();
  EXPECT_EQ(status.num_dropped, 0);
  EXPECT_GE(status.num_slots, status.num_committed);
  EXPECT_GT(status.from_peer, 0);
  EXPECT_GT(status.seconds, 0);
  EXPECT_LE(status.num_steps, num_steps.load());
  EXPECT_GT(status.stall_seconds, 0);
}

TEST(BalanceAgent, RandomFaultsWhileStepsRun) {
  std::atomic<int64_t> num_steps{0};
  std::atomic<uint32_t> num_calls{0};
  // Some requests are lost, some peers slow before or while they answer, some bytes wrong.
  const auto chance = [&] { return std::minstd_rand(++num_calls * 7919)() >> 8; };
  BalanceHooks hooks{.asked =
                         [&](int, int) {
                           if (chance() % 30 == 0) std::this_thread::sleep_for(milliseconds(15));
                           return chance() % 30 != 0;
                         },
                     .answered =
                         [&](int, int, std::span<std::byte> chunk) {
                           if (chance() % 30 == 0) std::this_thread::sleep_for(milliseconds(15));
                           if (chance() % 4 == 0) chunk[0] ^= std::byte{1};
                         }};
  const BalanceLayout layout = LayoutOf({.num_experts = 8, .num_slots = 10, .num_ranks = 4}, 3);
  RebalancerOptions planner{
      .choice = {.layer_updates_per_iter = 2, .num_staging = 3, .is_random = true, .seed = 11},
      .step_interval = 1,
      .load = [] { return moe::ExpertStats(); },
      .num_steps = [&] { return num_steps.load(); }};
  planner.period = milliseconds(1);
  planner.deadline = milliseconds(200);
  BalancedRanks ranks({.layout = layout,
                       .answer_deadline = milliseconds(10),
                       .hooks = std::move(hooks),
                       .planner = std::move(planner)});
  ranks.store(1).has_pool = true;
  ranks.store(2).has_checkpoint = true;
  SetLogLevel(LogLevel::kError);
  ranks.Start();
  // How many plans get through depends on the machine.
  TakeStepsUntil(ranks, num_steps, [&] {
    const moe::BalanceStatus status = ranks.board().ReadStatus();
    return status.num_committed >= 3 && status.num_dropped > 0 && status.num_corrupt > 0;
  });
  for (int rank = 0; rank < ranks.size(); ++rank) ranks.agent(rank).reset();
  SetLogLevel(LogLevel::kInfo);
}

// TensorRT-LLM's rhythm, a look after every step, at a load that is steady but for chance.
TEST(BalanceAgent, LoadGetsLevelAndThenRests) {
  std::atomic<int64_t> num_steps{0};
  const moe::SlotShape slots{.num_experts = 16, .num_slots = 20, .num_ranks = 4};
  const BalanceLayout layout = LayoutOf(slots, 2);
  // The first experts, which lie together, get most.
  std::vector<double> load(16, 1);
  for (size_t e = 0; e < 4; ++e) load[e] = 10;
  std::minstd_rand chance(5);
  std::discrete_distribution<int32_t> router(load.begin(), load.end());
  moe::ExpertStats stats(2, 16);
  RebalancerOptions planner{.choice = {.layer_updates_per_iter = 1, .num_staging = 2},
                            .step_interval = 1,
                            .load =
                                [&] {
                                  std::vector<int32_t> experts(64 * 4);
                                  for (int layer = 0; layer < 2; ++layer) {
                                    for (int32_t& expert : experts) expert = router(chance);
                                    stats.Count(layer, experts);
                                  }
                                  return stats;
                                },
                            .num_steps = [&] { return num_steps.load(); }};
  planner.period = milliseconds(1);
  BalancedRanks ranks({.layout = layout, .num_staging = 2, .planner = std::move(planner)});
  ranks.Start();
  const auto is_level = [&](size_t layer) {
    const auto imbalance = [&](const std::vector<moe::SlotList>& lists) {
      return moe::Imbalance(moe::RankLoads(slots.num_ranks, load, lists[layer]));
    };
    return imbalance(ranks.store(0).present()) < imbalance(layout.experts) / 2;
  };
  TakeStepsUntil(ranks, num_steps, [&] { return is_level(0) && is_level(1); });
  const auto num_plans = [&] { return ranks.board().ReadStatus().num_committed; };
  const int64_t num_until_level = num_plans();
  const int64_t last = num_steps + 1000;
  TakeStepsUntil(ranks, num_steps, [&] { return num_steps >= last; });
  EXPECT_LE(num_plans(), num_until_level + 10) << "of 1000 steps";
}

TEST(Rebalancer, PlansNothingWhileARankHasNotFlipped) {
  std::atomic<int64_t> num_steps{0};
  const BalanceLayout layout = LayoutOf({.num_experts = 8, .num_slots = 8, .num_ranks = 2}, 4);
  RebalancerOptions planner{.choice = {.num_staging = 2, .is_random = true},
                            .step_interval = 1,
                            .load = [] { return moe::ExpertStats(); },
                            .num_steps = [&] { return ++num_steps; }};
  planner.period = milliseconds(1);
  BalancedRanks ranks({.layout = layout, .planner = std::move(planner)});
  ranks.Start();
  const BalanceBoard board = ranks.board();
  ASSERT_TRUE(BalancedRanks::Comes([&] { return board.committable() == 1; }));
  ASSERT_TRUE(ranks.agent(0)->Flip(1));
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(board.published(), 1U);
  EXPECT_EQ(board.committable(), 1U);
  ASSERT_TRUE(ranks.agent(1)->Flip(1));
  ASSERT_TRUE(BalancedRanks::Comes([&] { return board.committable() == 2; }));
  ranks.FlipAll(2);
}

}  // namespace
}  // namespace moebius::rank
