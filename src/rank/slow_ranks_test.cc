#include "rank/slow_ranks.h"

#include <gtest/gtest.h>

namespace moebius::rank {
namespace {

using comm::Clock;
using engine::RankLoad;
using std::chrono::seconds;

// Ranks of one stage; each has steps all the time, of which it waits a share.
class Ranks {
 public:
  explicit Ranks(int size) : loads_(static_cast<size_t>(size)) {
    for (int rank = 0; rank < size; ++rank) {
      loads_[static_cast<size_t>(rank)].rank = rank;
      loads_[static_cast<size_t>(rank)].dp = rank;
    }
  }

  // Five seconds go by.
  void Pass(const std::vector<double>& waits, double in_steps = 5) {
    now_ += seconds(5);
    for (size_t rank = 0; rank < loads_.size(); ++rank) {
      loads_[rank].num_steps += 10;
      loads_[rank].num_rows += 100 + static_cast<int64_t>(rank);
      loads_[rank].seconds += in_steps;
      loads_[rank].parts.wait += waits[rank];
    }
  }
  std::vector<SlowRank> Look(SlowRanks& ranks) { return ranks.Look(loads_, now_); }
  void Wait(seconds time) { now_ += time; }
  std::vector<RankLoad>& loads() { return loads_; }

 private:
  std::vector<RankLoad> loads_;
  Clock::time_point now_ = Clock::time_point(seconds(1000));
};

TEST(SlowRanks, TheOneThatIsBusyWhileOthersWait) {
  SlowRanks slow(/*together=*/true);
  Ranks ranks(4);
  EXPECT_TRUE(ranks.Look(slow).empty());
  ranks.Pass({3.5, 4, 0.1, 3});
  const std::vector<SlowRank> found = ranks.Look(slow);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].load.rank, 2);
  EXPECT_NEAR(found[0].others_waited, 3.5, 1e-9);
  EXPECT_EQ(found[0].Describe(),
            "rank 2 (data-parallel rank 2) holds up the others: of the last 5.0 s they waited 3.5 "
            "s, it waited 0.1 s and was busy for 4.9 s, with 102 rows in 10 steps (the fullest "
            "other one: 103 rows)");
}

TEST(SlowRanks, RanksThatTakeTurnsAreNone) {
  SlowRanks slow(true);
  Ranks ranks(4);
  ranks.Look(slow);
  ranks.Pass({3.4, 3.6, 3.0, 3.9});  // four ranks on one core: all of them wait
  EXPECT_TRUE(ranks.Look(slow).empty());
  ranks.Pass({0.3, 0.2, 0.0, 0.1});  // nobody waits long
  EXPECT_TRUE(ranks.Look(slow).empty());
  ranks.Pass({0.09, 0.09, 0, 0.09}, 0.1);  // idle ranks: a slow one costs nobody anything
  EXPECT_TRUE(ranks.Look(slow).empty());
}

// The first of two stages has no step while the last one is busy with its own.
TEST(SlowRanks, AStageThatOthersHaveNoStepFor) {
  SlowRanks slow(true);
  Ranks ranks(2);
  ranks.loads()[1].dp = 0;
  ranks.loads()[1].pp = 1;
  ranks.Look(slow);
  const auto pass = [&](double first, double last) {
    ranks.Wait(seconds(5));
    ranks.loads()[0].seconds += first;
    ranks.loads()[1].seconds += last;
    return ranks.Look(slow);
  };
  EXPECT_TRUE(pass(0.1, 0.3).empty()) << "seldom anything to do";
  EXPECT_TRUE(pass(3, 4).empty());
  const std::vector<SlowRank> found = pass(1, 4.5);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].load.rank, 1);
  EXPECT_NEAR(found[0].others_waited, 4, 1e-9);
}

TEST(SlowRanks, IsNamedOnceAMinute) {
  SlowRanks slow(true);
  Ranks ranks(2);
  ranks.Look(slow);
  int num_named = 0;
  for (int i = 0; i < 24; ++i) {  // two minutes
    ranks.Pass({4, 0});
    num_named += static_cast<int>(ranks.Look(slow).size());
  }
  EXPECT_EQ(num_named, 2);
  ranks.Pass({0, 4});
  EXPECT_EQ(ranks.Look(slow).size(), 1u) << "another one is news";
}

TEST(SlowRanks, LooksOnceAWindow) {
  SlowRanks slow(true);
  Ranks ranks(2);
  ranks.Look(slow);
  ranks.loads()[0].seconds += 1;
  ranks.loads()[0].parts.wait += 1;
  ranks.loads()[1].seconds += 1;
  ranks.Wait(seconds(1));
  EXPECT_TRUE(ranks.Look(slow).empty());
  ranks.Pass({4, 0});
  EXPECT_EQ(ranks.Look(slow).size(), 1u);
}

TEST(SlowRanks, GroupsThatShareNoStepsAreSeenApart) {
  Ranks ranks(4);
  for (RankLoad& load : ranks.loads()) {
    load.dp = load.rank / 2;
    load.tp = load.rank % 2;
  }
  SlowRanks together(true);
  SlowRanks apart(false);
  ranks.Look(together);
  ranks.Look(apart);
  ranks.Pass({4, 0.5, 4, 0.5});  // two slow ones, each in its own group
  EXPECT_TRUE(ranks.Look(together).empty());
  const std::vector<SlowRank> found = ranks.Look(apart);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].load.rank, 1);
  EXPECT_EQ(found[1].load.rank, 3);
  EXPECT_TRUE(found[1].Describe().starts_with(
      "rank 3 (data-parallel rank 1, tensor-parallel rank 1) holds up the others"))
      << found[1].Describe();
}

}  // namespace
}  // namespace moebius::rank
