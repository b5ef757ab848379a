#include "rank/lockstep.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "rank/deadlines_test.h"

namespace moebius::rank {
namespace {

using comm::AbortWord;
using comm::Clock;
using std::chrono::milliseconds;
using testing::Dawdle;
using testing::In;
using testing::kOneMinute;

// Leaders as threads over heap memory; their ranks in the world are 100, 101, ...
class Leaders {
 public:
  explicit Leaders(int size) : size_(size), lines_(Lockstep::NumBytes(size) / 64) {}

  void Run(const std::function<void(int, Lockstep&)>& body) {
    std::vector<std::thread> threads;
    for (int leader = 0; leader < size_; ++leader) {
      threads.emplace_back([&, leader] {
        Lockstep lockstep(InfoOf(leader), memory());
        body(leader, lockstep);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  comm::GroupInfo InfoOf(int leader) {
    comm::GroupInfo info{.name = "test leaders", .rank = leader, .abort = &abort_};
    info.world_ranks.resize(static_cast<size_t>(size_));
    std::iota(info.world_ranks.begin(), info.world_ranks.end(), 100);
    return info;
  }
  std::span<std::byte> memory() {
    return {reinterpret_cast<std::byte*>(lines_.data()), lines_.size() * sizeof(Line)};
  }
  AbortWord& abort() { return abort_; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  int size_;
  std::vector<Line> lines_;
  AbortWord abort_;
};

// What leader `leader` brings to step `step`: anybody can compute it.
Offer OfferOf(int leader, int64_t step) {
  std::minstd_rand random(static_cast<uint32_t>(step * 64 + leader + 1));
  random.discard(3);
  return {.step = step,
          .epoch = step / 100,
          .next_epoch = step / 100 + static_cast<int64_t>(random() % 3),
          .rows = static_cast<int64_t>(random() % 50),
          .moe_chunks = static_cast<int64_t>(random() % 9),
          .bound_ns = static_cast<int64_t>(random() % 1000),
          .may_pad = random() % 4 != 0};
}

TEST(Lockstep, EverybodyKnowsWhatEverybodyBrings) {
  for (const int size : {1, 2, 3, 8}) {
    const int64_t num_steps = size == 8 ? 1000 : 3000;
    Leaders(size).Run([&](int leader, Lockstep& lockstep) {
      std::minstd_rand random(static_cast<uint32_t>(leader) + 1);
      for (int64_t step = 0; step < num_steps; ++step) {
        Dawdle(random);
        Offer offer = OfferOf(leader, step);
        // Each in its own time; the last step is the first that all want to be the last.
        offer.wants_stop = step >= num_steps - 1 - leader;
        const Result<Agreement> agreement = lockstep.Agree(offer, In(kOneMinute));
        ASSERT_TRUE(agreement) << agreement.error().message();
        ASSERT_EQ(agreement->rows.size(), static_cast<size_t>(size));
        int64_t most = 0;
        int64_t longest = 0;
        int64_t epoch = INT64_MAX;
        int64_t total = 0;
        bool may_pad = true;
        for (int other = 0; other < size; ++other) {
          const Offer its = OfferOf(other, step);
          ASSERT_EQ(agreement->rows[static_cast<size_t>(other)], its.rows);
          most = std::max(most, its.moe_chunks);
          longest = std::max(longest, its.bound_ns);
          epoch = std::min(epoch, its.next_epoch);
          total += its.rows;
          may_pad = may_pad && its.may_pad;
        }
        ASSERT_EQ(agreement->moe_chunks, most);
        ASSERT_EQ(agreement->bound_ns, longest);
        ASSERT_EQ(agreement->epoch, epoch);
        ASSERT_EQ(agreement->total_rows, total);
        ASSERT_EQ(agreement->may_pad, may_pad);
        ASSERT_EQ(agreement->stop, step == num_steps - 1);
      }
    });
  }
}

TEST(Lockstep, AnotherStepOrEpochIsAnErrorThatNamesBoth) {
  for (const bool is_epoch : {false, true}) {
    Leaders leaders(3);
    leaders.Run([&](int leader, Lockstep& lockstep) {
      Offer offer{.step = 4, .epoch = 2};
      ASSERT_TRUE(lockstep.Agree(offer, In(kOneMinute)));
      offer.step = 5;
      if (leader == 1) ++(is_epoch ? offer.epoch : offer.step);
      const Result<Agreement> agreement = lockstep.Agree(offer, In(kOneMinute));
      ASSERT_FALSE(agreement);
      // Whoever comes to it after the abort may hear of that instead.
      if (agreement.error().code() != ErrorCode::kUnavailable) {
        EXPECT_EQ(agreement.error().code(), ErrorCode::kInternal);
        const std::string what = is_epoch ? "placement epoch" : "step";
        const int64_t value = is_epoch ? 2 : 5;
        const int64_t mine = value + (leader == 1 ? 1 : 0);
        const int64_t its = value + (leader == 1 ? 0 : 1);
        const int other = leader == 1 ? 0 : 1;
        EXPECT_EQ(agreement.error().message(),
                  fmt::format("lockstep of test leaders: rank {} is at {} {}, rank {} at {} {}",
                              100 + leader, what, mine, 100 + other, what, its));
      }
      EXPECT_EQ(lockstep.Agree(offer, In(kOneMinute)).error().message(),
                agreement.error().message());
      EXPECT_TRUE(lockstep.IsStepBegun());
      EXPECT_TRUE(lockstep.WaitForWork(In(kOneMinute)));
    });
    EXPECT_TRUE(leaders.abort().is_set());
  }
}

TEST(Lockstep, ALeaderThatDiesIsNamed) {
  for (const int size : {2, 5, 8}) {
    Leaders leaders(size);
    const int victim = size / 2;
    std::atomic<int> num_deadlines = 0;
    leaders.Run([&](int leader, Lockstep& lockstep) {
      for (int64_t step = 0; step < 200; ++step) {
        if (leader == victim && step == 50) return;
        const Result<Agreement> agreement =
            lockstep.Agree(OfferOf(leader, step), In(step < 50 ? kOneMinute : milliseconds(1000)));
        if (agreement) continue;
        EXPECT_EQ(step, 50);
        if (agreement.error().code() == ErrorCode::kDeadline) {
          ++num_deadlines;
          EXPECT_EQ(agreement.error().message(),
                    fmt::format("rank {} did not come in time: rank {} waited for it in lockstep "
                                "of test leaders, step 50",
                                100 + victim, 100 + leader));
        } else {
          EXPECT_EQ(agreement.error().code(), ErrorCode::kUnavailable);
          EXPECT_NE(agreement.error().message().find(fmt::format("of rank {}", 100 + victim)),
                    std::string::npos);
        }
        return;
      }
      FAIL() << "nobody missed the victim";
    });
    EXPECT_EQ(num_deadlines, 1);
    EXPECT_EQ(leaders.abort().culprit(), 100 + victim);
  }
}

TEST(Lockstep, AnIdleLeaderSleepsUntilItsDeadline) {
  Leaders(2).Run([&](int leader, Lockstep& lockstep) {
    if (leader == 1) return;
    EXPECT_FALSE(lockstep.IsStepBegun());
    const Clock::time_point begin = Clock::now();
    EXPECT_FALSE(lockstep.WaitForWork(In(milliseconds(60))));
    EXPECT_GE(Clock::now() - begin, milliseconds(60));
    lockstep.RingSelf();
    lockstep.RingSelf();
    EXPECT_TRUE(lockstep.WaitForWork(In(kOneMinute)));
    EXPECT_FALSE(lockstep.IsStepBegun());                      // it rang itself
    EXPECT_FALSE(lockstep.WaitForWork(In(milliseconds(20))));  // both rings are taken
  });
}

TEST(Lockstep, AnAbortWakesWhoSleeps) {
  Leaders leaders(2);
  leaders.Run([&](int leader, Lockstep& lockstep) {
    if (leader == 1) {
      std::this_thread::sleep_for(milliseconds(30));
      leaders.abort().Set(101, 107);
      return;
    }
    EXPECT_TRUE(lockstep.WaitForWork(In(kOneMinute)));
    EXPECT_TRUE(lockstep.IsStepBegun());
    const Result<Agreement> agreement = lockstep.Agree({}, In(kOneMinute));
    ASSERT_FALSE(agreement);
    EXPECT_EQ(agreement.error().message(),
              "lockstep of test leaders, step 0, was given up: rank 101 saw a failure of rank 107");
  });
}

// The loop of a rank, with an engine thread beside it that brings work now and then: every piece of
// work is done, no step is run without any, and all end together.
TEST(Lockstep, WorkComesAndGoes) {
  for (const int size : {2, 4, 8}) {
    constexpr int kNumPlans = 300;
    std::atomic<int64_t> num_steps = 0;
    std::atomic<int64_t> num_empty = 0;
    std::atomic<int64_t> num_done = 0;
    Leaders(size).Run([&](int leader, Lockstep& lockstep) {
      std::atomic<int> num_planned = 0;
      std::atomic<bool> is_stopping = false;
      std::thread engine([&] {
        std::minstd_rand random(static_cast<uint32_t>(leader) + 7);
        for (int plan = 0; plan < kNumPlans; ++plan) {
          Dawdle(random);
          if (random() % 64 == 0) std::this_thread::sleep_for(milliseconds(1));
          ++num_planned;
          lockstep.RingSelf();
        }
        is_stopping = true;
        lockstep.RingSelf();
      });
      int num_run = 0;
      bool has_said_stop = false;
      for (int64_t step = 0;; ++step) {
        bool stops = false;
        while (true) {
          stops = is_stopping && num_run == num_planned;
          if (num_run < num_planned || (stops && !has_said_stop)) break;
          if (lockstep.IsStepBegun()) break;
          ASSERT_TRUE(lockstep.WaitForWork(In(kOneMinute)));
        }
        const bool has_plan = num_run < num_planned;
        has_said_stop = stops;
        const Result<Agreement> agreement = lockstep.Agree(
            {.step = step, .rows = has_plan ? 1 : 0, .wants_stop = stops}, In(kOneMinute));
        ASSERT_TRUE(agreement) << agreement.error().message();
        num_run += has_plan ? 1 : 0;
        if (leader == 0) {
          ++num_steps;
          num_empty += agreement->total_rows == 0 ? 1 : 0;
          num_done += agreement->total_rows;
        }
        if (agreement->stop) break;
      }
      engine.join();
      EXPECT_EQ(num_run, kNumPlans);
    });
    EXPECT_EQ(num_done, int64_t{size} * kNumPlans);
    // Only leaders that came to stop begin a step without rows, each once.
    EXPECT_LE(num_empty, size);
    EXPECT_LE(num_steps, int64_t{size} * kNumPlans + size);
  }
}

}  // namespace
}  // namespace moebius::rank
