// What lies in a staging slot is what the source had, whatever the source, or the next one is
// asked; and whoever is asked meanwhile answers.
#include "rank/expert_mail.h"

#include <gtest/gtest.h>

#include "rank/balance_ranks_test.h"

namespace moebius::rank {
namespace {

using testing::BalancedRanks;
using testing::CorruptFirst;
using testing::Finish;
using testing::FourRanks;
using testing::kAfter;
using testing::Try;

// Rank 0 fetches expert 7 of layer 0 from so late a source.
enum class From { kPeer, kPool, kCheckpoint, kSameRank };
constexpr From kAllSources[] = {From::kPeer, From::kPool, From::kCheckpoint, From::kSameRank};

const moe::SlotList kWithinRank0{1, 0, 2, 3, 4, 5, 6, 7};

moe::SlotList PlanOf(From from) { return from == From::kSameRank ? kWithinRank0 : kAfter; }

BalancedRanks::Options OptionsOf(From from) {
  BalancedRanks::Options options{.layout = FourRanks()};
  if (from == From::kPool || from == From::kCheckpoint) options.hooks = CorruptFirst(1000);
  return options;
}

// Changes a bit of the staging slot when all of it is written, the first so many times.
auto SpoilFirst(int count) {
  return [left = count](size_t offset, std::span<std::byte> staged) mutable {
    const bool is_last = offset + testing::kTestChunk >= staged.size();
    if (is_last && left-- > 0) staged[17] ^= std::byte{32};
  };
}

// A request from rank 1, which itself has nothing to ask, written by hand.
void AskFor(const BalanceBoard& board, uint32_t sequence, const PeerSlot& from, size_t offset,
            size_t length) {
  Mailbox& mailbox = board.MailboxOf(1);
  mailbox.layer = from.layer;
  mailbox.local_slot = from.local_slot;
  mailbox.offset = offset;
  mailbox.length = length;
  mailbox.word.store(Mailbox::WordOf(MailState::kAsked, from.rank, sequence));
  comm::Ring(board.CellOf(from.rank).bell);
}
bool IsAnswered(const BalanceBoard& board) {
  return Mailbox::StateOf(board.MailboxOf(1).word.load()) == MailState::kAnswered;
}

// Rank 0's, which has that source and no other one beside its peers.
testing::FakeStore& StoreWith(BalancedRanks& ranks, From from) {
  testing::FakeStore& store = ranks.store(0);
  store.has_pool = from == From::kPool;
  store.has_checkpoint = from == From::kCheckpoint;
  return store;
}

TEST(ExpertMail, WhatWasStagedIsReadAgainWhateverTheSource) {
  for (const From from : kAllSources) {
    SCOPED_TRACE(static_cast<int>(from));
    BalancedRanks ranks(OptionsOf(from));
    testing::FakeStore& store = ranks.store(0);
    store.has_pool = from == From::kPool;
    store.has_checkpoint = true;
    store.written = SpoilFirst(1);
    // The checkpoint follows itself in no plan.
    const bool is_last_source = from == From::kCheckpoint;
    ranks.Start();
    ASSERT_EQ(Try(ranks, 1, PlanOf(from)), !is_last_source);
    const moe::BalanceStatus status = ranks.board().ReadStatus();
    const bool peer_was_corrupt = from == From::kPool || from == From::kCheckpoint;
    EXPECT_EQ(status.num_corrupt, peer_was_corrupt ? 3 : 1);
    if (is_last_source) {
      ASSERT_TRUE(Try(ranks, 2, PlanOf(from)));
      Finish(ranks, 2, PlanOf(from));
      continue;
    }
    EXPECT_EQ(status.from_checkpoint, 1);
    Finish(ranks, 1, PlanOf(from));
  }
}

TEST(ExpertMail, StagingThatKeepsNothingDropsThePlan) {
  BalancedRanks ranks({.layout = FourRanks()});
  ranks.store(0).has_pool = true;
  ranks.store(0).has_checkpoint = true;
  ranks.store(0).written = SpoilFirst(3);
  ranks.Start();
  ASSERT_FALSE(Try(ranks, 1, kAfter));
  const std::string reason = ranks.board().CellOf(0).reason.Get();
  for (const char* part : {"layer 0, expert 7: from rank 3: staging slot 0 has checksum ",
                           ", expected ", "; host pool: staging slot 0 has checksum ",
                           "; checkpoint: staging slot 0 has checksum "}) {
    EXPECT_NE(reason.find(part), std::string::npos) << reason;
  }
  ASSERT_TRUE(Try(ranks, 2, kAfter));
  Finish(ranks, 2, kAfter);
}

TEST(ExpertMail, ASpoiledPoolIsFollowedByTheCheckpointOrNothing) {
  for (const bool has_checkpoint : {true, false}) {
    BalancedRanks ranks(OptionsOf(From::kPool));
    ranks.store(0).has_pool = true;
    ranks.store(0).is_pool_spoiled = true;
    ranks.store(0).has_checkpoint = has_checkpoint;
    ranks.Start();
    ASSERT_EQ(Try(ranks, 1, kAfter), has_checkpoint);
    EXPECT_EQ(ranks.board().ReadStatus().from_pool, 0);
    if (has_checkpoint) {
      Finish(ranks, 1, kAfter);
      EXPECT_EQ(ranks.board().ReadStatus().from_checkpoint, 1);
    } else {
      const std::string reason = ranks.board().CellOf(0).reason.Get();
      EXPECT_NE(reason.find("host pool: staging slot 0 has checksum "), std::string::npos)
          << reason;
    }
  }
}

TEST(ExpertMail, PeersAreAnsweredWhileARankFetches) {
  for (const From from : kAllSources) {
    SCOPED_TRACE(static_cast<int>(from));
    BalancedRanks ranks(OptionsOf(from));
    const BalanceBoard board = ranks.board();
    testing::FakeStore& store = StoreWith(ranks, from);
    std::atomic<int> num_written{0};
    store.written = [&](size_t, std::span<std::byte>) {
      const int write = num_written++;
      if (write == 0) AskFor(board, 1, {.rank = 0, .layer = 0, .local_slot = 0}, 0, 100);
      if (write == 1) {
        EXPECT_TRUE(IsAnswered(board)) << "it waits for all that is fetched";
      }
    };
    ranks.Start();
    ASSERT_TRUE(Try(ranks, 1, PlanOf(from)));
    EXPECT_GT(num_written.load(), 2);
    EXPECT_EQ(board.ChunkOf(1)[3], testing::WeightOf(0, 0, 3));
    Finish(ranks, 1, PlanOf(from));
  }
}

TEST(ExpertMail, ADropEndsAFetch) {
  for (const From from : kAllSources) {
    SCOPED_TRACE(static_cast<int>(from));
    BalancedRanks ranks(OptionsOf(from));
    const BalanceBoard board = ranks.board();
    testing::FakeStore& store = StoreWith(ranks, from);
    std::atomic<int> num_written{0};
    store.written = [&](size_t, std::span<std::byte>) {
      ++num_written;
      board.Drop(1);
    };
    ranks.Start();
    board.Publish({.number = 1, .updates = {{0, PlanOf(from)}}});
    ASSERT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReleased(1); }));
    EXPECT_EQ(num_written.load(), 1);
    EXPECT_TRUE(ranks.AllAsListed({testing::kBefore}));
  }
}

TEST(ExpertMail, WhatARankHasNotIsNotServed) {
  BalancedRanks ranks({.layout = FourRanks()});
  ranks.Start();
  const BalanceBoard board = ranks.board();
  uint32_t sequence = 0;
  const auto is_served = [&](int layer, int slot, size_t offset, size_t length) {
    AskFor(board, ++sequence, {.rank = 0, .layer = layer, .local_slot = slot}, offset, length);
    EXPECT_TRUE(BalancedRanks::Comes([&] { return IsAnswered(board); }));
    return board.MailboxOf(1).is_served;
  };
  EXPECT_TRUE(is_served(0, 1, 0, 100));
  EXPECT_TRUE(is_served(0, 1, 0, 0)) << "the checksum of all";
  EXPECT_FALSE(is_served(0, 2, 0, 100)) << "it has two slots";
  EXPECT_FALSE(is_served(0, 2, 0, 0));
  EXPECT_FALSE(is_served(0, -1, 0, 100));
  EXPECT_FALSE(is_served(1, 0, 0, 100));
  EXPECT_FALSE(is_served(-1, 0, 0, 100));
  EXPECT_FALSE(is_served(0, 0, testing::kExpertBytes - 99, 100));
  EXPECT_FALSE(is_served(0, 0, ~size_t{0}, 2));
  EXPECT_FALSE(is_served(0, 0, 0, testing::kTestChunk + 1));
  EXPECT_TRUE(is_served(0, 0, testing::kExpertBytes - 100, 100));
}

}  // namespace
}  // namespace moebius::rank
