#include "rank/control.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

namespace moebius::rank {
namespace {

using comm::Clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Memory {
 public:
  explicit Memory(int num_ranks) : lines_(Control::NumBytes(num_ranks) / sizeof(Line) + 1) {}
  std::span<std::byte> bytes() {
    return {reinterpret_cast<std::byte*>(lines_.data()), lines_.size() * sizeof(Line)};
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> lines_;
};

TEST(Control, OpensWhatWasCreatedAndNothingElse) {
  Memory memory(3);
  const auto error = [&](int num_ranks, uint64_t hash) {
    const Result<Control> control = Control::Open(memory.bytes(), num_ranks, hash);
    return control ? "" : control.error().message();
  };
  EXPECT_EQ(error(3, 0xab), "shared memory: magic is 0x0, expected 0x31304c54434d424d");
  Control::Create(memory.bytes(), 3, 0xab);
  EXPECT_EQ(error(3, 0xab), "");
  EXPECT_EQ(error(3, 0xac), "shared memory: layout hash is 0xab, expected 0xac");
  EXPECT_EQ(error(2, 0xab), "shared memory: number of ranks is 0x3, expected 0x2");
  EXPECT_EQ(error(64, 0xab), fmt::format("shared memory: {} bytes, expected {} for 64 ranks",
                                         memory.bytes().size(), Control::NumBytes(64)));
}

TEST(Control, ACellSaysHowItsRankIs) {
  Memory memory(2);
  const Control control = Control::Create(memory.bytes(), 2, 1);
  const RankReport before = control.Read(1);
  EXPECT_EQ(before.state, RankState::kStarting);
  EXPECT_EQ(before.pid, 0);
  EXPECT_EQ(before.step, -1);
  EXPECT_EQ(before.heartbeat_ns, 0);
  EXPECT_EQ(before.error, "");

  const Control rank = *Control::Open(memory.bytes(), 2, 1);
  rank.Enter(1, 4321);
  rank.SetState(1, RankState::kServing);
  rank.SetStep(1, 77);
  engine::RankLoad step;
  step.num_rows = 5;
  rank.Counters(1).Add(step);
  rank.SetError(1, "step 77: rank 0 did not come");
  rank.abort().Set(1, 0);
  EXPECT_EQ(control.Counters(1).Read().num_rows, 5);
  EXPECT_EQ(control.Counters(0).Read().num_rows, 0);
  const RankReport after = control.ReadAll()[1];
  EXPECT_STREQ(RankStateName(after.state), "serving");
  EXPECT_EQ(after.pid, 4321);
  EXPECT_EQ(after.step, 77);
  EXPECT_GE(after.heartbeat_ns, control.created().time_since_epoch() / std::chrono::nanoseconds(1));
  EXPECT_EQ(after.error, "step 77: rank 0 did not come");
  EXPECT_EQ(control.abort().culprit(), 0);
  EXPECT_EQ(control.Read(0).error, "");
}

TEST(Control, ALongTextIsCutBetweenCharacters) {
  Memory memory(1);
  const Control control = Control::Create(memory.bytes(), 1, 1);
  control.SetError(0, std::string(kMaxErrorBytes, 'x'));
  EXPECT_EQ(control.Read(0).error, std::string(kMaxErrorBytes, 'x'));
  const std::string head(kMaxErrorBytes - 2, 'x');
  control.SetError(0, head + "\u20ac and more");  // three bytes, of which two would fit
  EXPECT_EQ(control.Read(0).error, head);
  control.SetError(0, "short");
  EXPECT_EQ(control.Read(0).error, "short");
}

TEST(Control, TextsAreNeverMixed) {
  Memory memory(4);
  const Control control = Control::Create(memory.bytes(), 4, 1);
  std::atomic<bool> is_over = false;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&, rank] {
      for (int64_t step = 0; step < 3000; ++step) {
        const char letter = static_cast<char>('a' + step % 26);
        control.SetError(rank, std::string(1 + static_cast<size_t>(step * 37 % 500), letter));
        control.SetStep(rank, step);
        control.Beat(rank);
        if (step % 64 == 0) std::this_thread::yield();
      }
    });
  }
  std::thread watcher([&] {
    std::vector<int64_t> last(4, -1);
    while (!is_over) {
      for (int rank = 0; rank < 4; ++rank) {
        const RankReport report = control.Read(rank);
        ASSERT_GE(report.step, last[static_cast<size_t>(rank)]);
        last[static_cast<size_t>(rank)] = report.step;
        if (report.error.starts_with("(")) continue;  // was written to all the time
        ASSERT_EQ(report.error.find_first_not_of(report.error.substr(0, 1)), std::string::npos);
      }
    }
  });
  for (std::thread& rank : ranks) rank.join();
  is_over = true;
  watcher.join();
  EXPECT_EQ(control.Read(3).step, 2999);
  EXPECT_EQ(control.Read(3).error, std::string(1 + 2999 * 37 % 500, 'a' + 2999 % 26));
}

TEST(FindSilent, NamesWhoDoesNotBeat) {
  const Clock::time_point now = Clock::now();
  const Clock::time_point created = now - seconds(30);
  const Clock::time_point awake = created;
  const auto beat = [&](milliseconds ago, RankState state) {
    RankReport report;
    report.state = state;
    report.heartbeat_ns = std::chrono::nanoseconds((now - ago).time_since_epoch()).count();
    return report;
  };
  const std::vector<RankReport> reports = {
      beat(milliseconds(90), RankState::kServing),
      beat(milliseconds(1701), RankState::kServing),
      beat(milliseconds(1700), RankState::kServing),
      beat(seconds(9), RankState::kLoading),
      beat(seconds(9), RankState::kStopped),
      beat(seconds(9), RankState::kFailed),
      RankReport{},  // has not come up yet
  };
  EXPECT_EQ(FindSilent(reports, created, awake, now),
            (std::vector<SilentRank>{{3, seconds(9)}, {1, milliseconds(1701)}}));
  // A rank that never came up.
  EXPECT_EQ(FindSilent(reports, now - seconds(61), now - seconds(61), now).front(),
            (SilentRank{6, seconds(61)}));
  // The watcher was asleep itself until then.
  EXPECT_TRUE(FindSilent(reports, created, now - seconds(1), now).empty());
  EXPECT_EQ(FindSilent(reports, created, now - seconds(2), now),
            (std::vector<SilentRank>{{3, seconds(2)}, {1, milliseconds(1701)}}));
  EXPECT_TRUE(FindSilent({}, created, awake, now).empty());
}

// As a watcher does: a rank that stops beating is named within two seconds, the others are not.
TEST(FindSilent, WithinTwoSeconds) {
  Memory memory(3);
  const Control control = Control::Create(memory.bytes(), 3, 1);
  std::atomic<bool> is_over = false;
  std::atomic<bool> is_stuck = false;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      control.Enter(rank, 1000 + rank);
      while (!is_over) {
        if (!(rank == 1 && is_stuck)) control.Beat(rank);
        std::this_thread::sleep_for(milliseconds(20));
      }
    });
  }
  std::this_thread::sleep_for(milliseconds(50));
  is_stuck = true;
  const Clock::time_point begin = Clock::now();
  std::vector<SilentRank> silent;
  Clock::duration longest_look{0};
  for (Clock::time_point last = begin; silent.empty() && last - begin < seconds(30);) {
    std::this_thread::sleep_for(kHeartbeatPeriod);
    const Clock::time_point now = Clock::now();
    longest_look = std::max(longest_look, now - last);
    last = now;
    silent = FindSilent(control.ReadAll(), control.created(), control.created(), now);
  }
  is_over = true;
  for (std::thread& rank : ranks) rank.join();
  if (longest_look > seconds(1)) GTEST_SKIP() << "this machine stood still for a second";
  ASSERT_EQ(silent.size(), 1u);
  EXPECT_EQ(silent[0].rank, 1);
  EXPECT_GT(silent[0].silence, milliseconds(1700));
  // Two seconds on a machine that is not overloaded.
  EXPECT_LT(silent[0].silence, seconds(3));
}

}  // namespace
}  // namespace moebius::rank
