// What goes wrong between ranks that rebalance: bytes, peers, requests, plans, ends.

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "rank/balance_agent.h"
#include "rank/balance_ranks_test.h"

namespace moebius::rank {
namespace {

using std::chrono::milliseconds;
using testing::BalancedRanks;
using testing::CorruptFirst;
using testing::Finish;
using testing::FourRanks;
using testing::kAfter;
using testing::kBefore;
using testing::Try;

// Plans at random, as often as it can; each look is a step.
RebalancerOptions RandomPlanner(std::atomic<int64_t>& num_steps) {
  RebalancerOptions planner{.choice = {.num_staging = 2, .is_random = true},
                            .step_interval = 1,
                            .load = [] { return moe::ExpertStats(); },
                            .num_steps = [&num_steps] { return ++num_steps; }};
  planner.period = milliseconds(1);
  return planner;
}

TEST(BalanceFailure, AWrongPieceIsAskedForAgain) {
  BalancedRanks ranks({.layout = FourRanks(), .hooks = CorruptFirst(1)});
  ranks.Start();
  ASSERT_TRUE(Try(ranks, 1, kAfter));
  Finish(ranks, 1, kAfter);
  EXPECT_EQ(ranks.board().ReadStatus().num_corrupt, 1);
  EXPECT_EQ(ranks.board().ReadStatus().from_peer, 2);
}

TEST(BalanceFailure, ThenTheNextSourceIsAsked) {
  for (const bool has_pool : {true, false}) {
    BalancedRanks ranks({.layout = FourRanks(), .hooks = CorruptFirst(1000)});
    ranks.store(0).has_pool = has_pool;
    ranks.store(0).has_checkpoint = true;
    ranks.Start();
    ASSERT_TRUE(Try(ranks, 1, kAfter));
    Finish(ranks, 1, kAfter);
    const moe::BalanceStatus status = ranks.board().ReadStatus();
    EXPECT_EQ(status.num_corrupt, 2);
    EXPECT_EQ(status.from_peer, 1);
    EXPECT_EQ(status.from_pool, has_pool ? 1 : 0);
    EXPECT_EQ(status.from_checkpoint, has_pool ? 0 : 1);
  }
}

TEST(BalanceFailure, AnotherHolderIsASourceToo) {
  // Ranks 1 and 3 hold expert 0; rank 2 wants it and rank 3's bytes are wrong.
  BalanceLayout layout = FourRanks();
  layout.slots.num_experts = 6;
  layout.experts[0] = {1, 2, 0, 3, 4, 5, 0, 1};
  const moe::SlotList after{1, 2, 0, 3, 4, 0, 5, 1};
  BalancedRanks ranks({.layout = layout, .hooks = CorruptFirst(1000)});
  ranks.Start();
  ranks.board().Publish({.number = 1, .updates = {{0, after}}});
  ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(1); }))
      << ranks.board().CellOf(2).reason.Get();
  Finish(ranks, 1, after);
}

TEST(BalanceFailure, WithoutAnySourceThePlanIsDroppedAndTheNextOneGoes) {
  BalancedRanks ranks({.layout = FourRanks(), .hooks = CorruptFirst(2)});
  ranks.Start();
  ASSERT_FALSE(Try(ranks, 1, kAfter));
  EXPECT_EQ(ranks.board().CellOf(0).reason.Get(),
            "layer 0, expert 7: 4096 bytes at 0 came from rank 3 with a wrong checksum; "
            "host pool: there is none; checkpoint: there is none");
  ASSERT_TRUE(Try(ranks, 2, kAfter));
  Finish(ranks, 2, kAfter);
}

TEST(BalanceFailure, ASlotThatChangesOnTheWayShowsInTheWhole) {
  BalancedRanks* all = nullptr;
  std::atomic<bool> has_changed{false};
  BalancedRanks ranks(
      {.layout = FourRanks(), .hooks = {.asked = {}, .answered = [&](int source, int, auto) {
                                          // The piece is on its way; expert 7 is what rank 3 has
                                          // second.
                                          if (source == 3 && !has_changed.exchange(true)) {
                                            all->store(3).Spoil(0, 1);
                                          }
                                        }}});
  all = &ranks;
  ranks.store(0).has_checkpoint = true;
  ranks.Start();
  ASSERT_TRUE(Try(ranks, 1, kAfter));
  Finish(ranks, 1, kAfter);
  EXPECT_EQ(ranks.board().ReadStatus().num_corrupt, 1);
  EXPECT_EQ(ranks.board().ReadStatus().from_checkpoint, 1);
}

TEST(BalanceFailure, ALostRequestEndsWithItsDeadline) {
  for (const bool has_checkpoint : {true, false}) {
    BalancedRanks ranks(
        {.layout = FourRanks(),
         .answer_deadline = milliseconds(200),
         .hooks = {.asked = [](int source, int) { return source != 3; }, .answered = {}}});
    ranks.store(0).has_checkpoint = has_checkpoint;
    for (int rank = 1; rank < 4; ++rank) ranks.store(rank).has_checkpoint = true;  // busy machines
    ranks.Start();
    ASSERT_EQ(Try(ranks, 1, kAfter), has_checkpoint);
    if (has_checkpoint) {
      Finish(ranks, 1, kAfter);
      EXPECT_GE(ranks.board().ReadStatus().from_checkpoint, 1);
    } else {
      EXPECT_EQ(ranks.board().CellOf(0).reason.Get(),
                "layer 0, expert 7: rank 3 did not answer within 200 ms; "
                "host pool: there is none; checkpoint: there is none");
    }
  }
}

TEST(BalanceFailure, APeerThatComesTooLateFindsNoRequest) {
  std::atomic<int> num_slept{0};
  BalancedRanks ranks({.layout = FourRanks(),
                       .answer_deadline = milliseconds(50),
                       .hooks = {.asked =
                                     [&](int source, int) {
                                       if (source == 3 && num_slept++ == 0) {
                                         std::this_thread::sleep_for(milliseconds(300));
                                       }
                                       return true;
                                     },
                                 .answered = {}}});
  for (int rank = 0; rank < 4; ++rank) ranks.store(rank).has_checkpoint = true;
  ranks.Start();
  ASSERT_TRUE(Try(ranks, 1, kAfter));
  Finish(ranks, 1, kAfter);
  ASSERT_TRUE(Try(ranks, 2, kBefore));
  Finish(ranks, 2, kBefore);
  EXPECT_GE(num_slept.load(), 1);
}

TEST(BalanceFailure, ASourceThatHasBegunIsWaitedFor) {
  // The mailbox is the source's: nobody may write there meanwhile, nor flip what it reads.
  BalancedRanks* all = nullptr;
  std::atomic<int> num_slept{0};
  const auto sleep = [&](int source, int owner, std::span<std::byte>) {
    if (source != 3 || num_slept++ > 0) return;
    std::this_thread::sleep_for(milliseconds(200));
    EXPECT_NE(all->board().CellOf(owner).ready.load(), 1U);
  };
  BalancedRanks ranks({.layout = FourRanks(),
                       .answer_deadline = milliseconds(20),
                       .hooks = {.asked = {}, .answered = sleep}});
  all = &ranks;
  for (int rank = 0; rank < 4; ++rank) ranks.store(rank).has_checkpoint = true;
  ranks.Start();
  ASSERT_TRUE(Try(ranks, 1, kAfter));
  Finish(ranks, 1, kAfter);
}

TEST(BalanceFailure, ARankThatCannotStageSaysSo) {
  BalancedRanks ranks({.layout = FourRanks(), .num_staging = 0});
  ranks.Start();
  ASSERT_FALSE(Try(ranks, 1, kAfter));
  EXPECT_EQ(ranks.board().CellOf(0).reason.Get(),
            "1 slots of the rank change, it has 0 to stage them");
}

TEST(BalanceFailure, APlanThatIsNotWhatWasWritten) {
  BalancedRanks ranks({.layout = FourRanks()});
  const BalanceBoard board = ranks.board();
  board.Publish({.number = 1, .updates = {{0, kAfter}}});
  const std::span<std::byte> memory = ranks.memory();
  const auto list = std::as_bytes(std::span(kAfter));
  const auto found = std::search(memory.begin(), memory.end(), list.begin(), list.end());
  ASSERT_NE(found, memory.end());
  *found ^= std::byte{1};
  ranks.Start();
  for (int rank = 0; rank < 4; ++rank) {
    ASSERT_TRUE(BalancedRanks::Comes([&] { return board.CellOf(rank).failed.load() == 1; }));
    EXPECT_EQ(board.CellOf(rank).reason.Get().substr(0, 16), "plan 1 has hash ");
  }
  board.Drop(1);
  ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReleased(1); }));
  ASSERT_TRUE(Try(ranks, 2, kAfter));
  Finish(ranks, 2, kAfter);
}

TEST(BalanceFailure, APlanThatIsNoPlacement) {
  BalancedRanks ranks({.layout = FourRanks()});
  ranks.Start();
  EXPECT_FALSE(Try(ranks, 1, {0, 0, 2, 3, 4, 5, 6, 7}));  // nobody has expert 1
  EXPECT_FALSE(Try(ranks, 2, {8, 1, 2, 3, 4, 5, 6, 7}));  // there is no expert 8
  const BalanceBoard board = ranks.board();
  board.Publish({.number = 3, .updates = {{0, kAfter}, {0, kAfter}}});
  ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReleased(3); }));
  EXPECT_EQ(board.CellOf(2).reason.Get(), "plan 3 changes layer 0, expected each once, below 1");
}

TEST(BalanceFailure, AnAbortEndsAllThatWaits) {
  BalancedRanks ranks(
      {.layout = FourRanks(), .hooks = {.asked = [](int, int) { return false; }, .answered = {}}});
  ranks.Start();
  ranks.board().Publish({.number = 1, .updates = {{0, kAfter}}});
  std::this_thread::sleep_for(milliseconds(20));
  const auto begin = comm::Clock::now();
  ranks.abort().Set(1, 2);
  for (int rank = 0; rank < 4; ++rank) ranks.agent(rank).reset();
  EXPECT_LT(comm::Clock::now() - begin, std::chrono::seconds(30));  // the answers' deadline is 60 s
  EXPECT_NE(ranks.board().CellOf(0).ready.load(), 1U);
}

TEST(BalanceFailure, RanksEndInTheMiddleOfAPlan) {
  for (int first = 0; first < 4; ++first) {
    std::atomic<int64_t> num_steps{0};
    BalancedRanks ranks({.layout = FourRanks(),
                         .hooks = {.asked = [](int, int) { return false; }, .answered = {}},
                         .planner = RandomPlanner(num_steps)});
    ranks.Start();
    ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.board().published() == 1; }));
    const auto begin = comm::Clock::now();
    for (int i = 0; i < 4; ++i) ranks.agent((first + i) % 4).reset();
    EXPECT_LT(comm::Clock::now() - begin, std::chrono::seconds(30));
  }
}

TEST(BalanceFailure, ARankThatDiesBetweenTheCommitAndItsFlip) {
  std::atomic<int64_t> num_steps{0};
  BalancedRanks ranks({.layout = FourRanks(), .planner = RandomPlanner(num_steps)});
  ranks.Start();
  ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.board().committable() == 1; }));
  for (const int rank : {0, 1, 3}) ASSERT_TRUE(ranks.agent(rank)->Flip(1));
  const auto begin = comm::Clock::now();
  ranks.agent(2).reset();
  ranks.abort().Set(2, 2);
  for (const int rank : {0, 1, 3}) {
    EXPECT_TRUE(ranks.store(rank).IsAsListed()) << "a step that it is in computes with these";
    ranks.agent(rank).reset();
  }
  EXPECT_LT(comm::Clock::now() - begin, std::chrono::seconds(30));
  EXPECT_EQ(ranks.board().published(), 1U) << "experts stay for good";
}

TEST(BalanceFailure, ThePlannerDropsWhatDoesNotComeInTime) {
  std::atomic<int64_t> num_steps{0};
  RebalancerOptions planner = RandomPlanner(num_steps);
  planner.deadline = milliseconds(50);
  BalancedRanks ranks({.layout = FourRanks(), .planner = std::move(planner)});
  for (int rank = 0; rank < 3; ++rank) ranks.StartRank(rank);
  const BalanceBoard board = ranks.board();
  ASSERT_TRUE(BalancedRanks::Comes([&] { return board.ReadStatus().num_dropped == 1; }));
  EXPECT_EQ(board.committable(), 0U);
  EXPECT_TRUE(board.ReadStatus().last_drop.starts_with("not ready within 50 ms: rank "));
  // Until the last rank has seen that, there is no other plan.
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(board.published(), 1U);
  ranks.StartRank(3);
  ASSERT_TRUE(BalancedRanks::Comes([&] { return board.published() > 1; }));
}

}  // namespace
}  // namespace moebius::rank
