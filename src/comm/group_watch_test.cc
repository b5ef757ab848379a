#include "comm/group_watch.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

namespace moebius::comm {
namespace {

using std::chrono::milliseconds;

// Rank 0 waits for 1 in one group, 1 for 2 in another, and 2 computes: all with the same deadline,
// and each may be the first to lose patience.
class ThreeRanks {
 public:
  GroupWatch Group(int rank, int low) {
    GroupInfo info{.name = low == 0 ? "the low group" : "the high group", .rank = rank - low};
    info.world_ranks = {low, low + 1};
    info.abort = &abort_;
    info.awaited = awaited_;
    return GroupWatch(info);
  }
  AbortWord& abort() { return abort_; }
  Awaited& awaited(int rank) { return awaited_[static_cast<size_t>(rank)]; }

 private:
  AbortWord abort_;
  std::array<Awaited, 3> awaited_;
};

TEST(GroupWatch, BlamesWhomTheLateOneWaitsForInAnotherGroup) {
  for (const int patient : {0, 1}) {
    ThreeRanks ranks;
    std::array<Signal, 2> never;
    std::array<std::string, 2> errors;
    std::array<std::thread, 2> threads;
    for (const int rank : {0, 1}) {
      threads[static_cast<size_t>(rank)] = std::thread([&, rank] {
        GroupWatch watch = ranks.Group(rank, rank);
        // The patient one has come to its wait when the other begins to lose patience.
        while (rank != patient && ranks.awaited(patient).rank == 0) std::this_thread::yield();
        watch.BeginStep(7, Clock::now() + milliseconds(rank == patient ? 30000 : 200));
        EXPECT_FALSE(watch.Wait(never[static_cast<size_t>(rank)], 1, 0, 1, "barrier"));
        errors[static_cast<size_t>(rank)] = watch.status().error().message();
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(ranks.abort().culprit(), 2);
    EXPECT_EQ(errors[0],
              patient == 0 ? "barrier of the low group, step 7, was given up: rank 1 saw a "
                             "failure of rank 2"
                           : "rank 2 did not come in time: rank 0 waited for rank 1, which waited "
                             "for it, in barrier of the low group, step 7");
    EXPECT_EQ(errors[1], patient == 0 ? "rank 2 did not come in time: rank 1 waited for it in "
                                        "barrier of the high group, step 7"
                                      : "barrier of the high group, step 7, was given up: rank 0 "
                                        "saw a failure of rank 2");
  }
}

TEST(GroupWatch, NamesTheLateOneItselfWhereTheyWaitForEachOther) {
  ThreeRanks ranks;
  Signal never;
  ranks.awaited(1).rank = 1;  // rank 1 waits for rank 0
  GroupWatch watch = ranks.Group(0, 0);
  watch.BeginStep(7, Clock::now() + milliseconds(50));
  EXPECT_FALSE(watch.Wait(never, 1, 0, 1, "barrier"));
  EXPECT_EQ(ranks.abort().culprit(), 1);
}

TEST(GroupWatch, WhoseWaitIsOverWaitsForNobody) {
  ThreeRanks ranks;
  Signal signal;
  std::thread raises([&] {
    while (ranks.awaited(0).rank != 2) std::this_thread::yield();
    Raise(signal, 1);
  });
  GroupWatch watch = ranks.Group(0, 0);
  watch.BeginStep(7, Clock::now() + milliseconds(30000));
  EXPECT_TRUE(watch.Wait(signal, 1, 0, 1, "barrier"));
  raises.join();
  EXPECT_EQ(ranks.awaited(0).rank.load(), 0);
}

}  // namespace
}  // namespace moebius::comm
