// The failure matrix: any rank of several layouts is killed or stopped, or the server is killed, at
// any moment from start-up to decoding, also while experts move. Whoever waits for an answer gets
// an error in words, the exit status says it, and nothing stays behind.
//
// A few cells run always; FailureMatrix runs MOEBIUS_FAILURE_ROUNDS (100) of all cells in random
// order (MOEBIUS_FAILURE_SEED, printed). MOEBIUS_SLOW=N gives everything N times as long.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "failure_runner.h"
#include "rank/rank_device.h"

namespace moebius {
namespace {

TEST_F(FailureTest, AFewCells) {
  std::mt19937 random(1);
  const Layout* const dp = &kLayouts[0];
  const Layout* const tp = &kLayouts[1];
  const Layout* const pp = &kLayouts[2];
  for (const Cell& cell :
       {Cell{dp, 0, SIGKILL, Phase::kStart}, Cell{pp, 1, SIGKILL, Phase::kDecode},
        Cell{tp, 0, SIGSTOP, Phase::kPrefill}, Cell{dp, kFrontend, SIGKILL, Phase::kDecode},
        Cell{tp, kFrontend, SIGKILL, Phase::kStart}}) {
    RunCell(cell, random);
  }
}

// Whichever rank it is, in the middle of a plan or between two.
TEST_F(FailureTest, WhileExpertsMove) {
  std::mt19937 random(2);
  const Layout* const moving = std::ranges::find_if(kLayouts, &Layout::moves);
  for (const int victim : {0, 2}) RunCell({moving, victim, SIGKILL, Phase::kDecode}, random);
}

// A plan is published, and will not be committed for a long time.
TEST_F(FailureTest, BeforeACommit) {
  std::mt19937 random(3);
  const Layout fetching{"DP4+EP, slow moves", Args{"-dp", "4", "-ep"} + MovesAllTheTime(2000), 4,
                        &kDemo, true};
  for (const int victim : {0, 2}) {
    RunCell({&fetching, victim, SIGKILL, Phase::kDecode, Moment::kBeforeCommit}, random);
  }
}

// A leader, without whom no step is agreed on, and a follower: its peers have flipped by then.
TEST_F(FailureTest, BetweenACommitAndAFlip) {
  std::mt19937 random(4);
  const Layout leaders{"DP4+EP, moves of a second",
                       Args{"-dp", "4", "-ep"} + MovesAllTheTime(120'000), 4, &kDemo, true};
  const Layout followers{"TP2+DP2+EP, moves of a second",
                         Args{"-tp", "2", "-dp", "2", "-ep"} + MovesAllTheTime(40'000), 4, &kSmall,
                         true};
  for (const auto& [layout, victim] : {std::pair{&leaders, 1}, {&followers, 3}}) {
    RunCell({layout, victim, SIGKILL, Phase::kDecode, Moment::kBeforeFlip}, random);
  }
}

TEST_F(FailureTest, OnGpus) {
  if (rank::NumRankDevices().value_or(0) < 2) GTEST_SKIP() << "fewer than two GPUs";
  std::mt19937 random(5);
  const auto& [dp, tp, pp, moving] = kGpuLayouts;
  for (const Cell& cell :
       {Cell{&dp, 0, SIGKILL, Phase::kStart}, Cell{&dp, 1, SIGKILL, Phase::kDecode},
        Cell{&dp, 0, SIGSTOP, Phase::kDecode}, Cell{&tp, 1, SIGKILL, Phase::kPrefill},
        Cell{&tp, 0, SIGKILL, Phase::kIdle}, Cell{&tp, 1, SIGSTOP, Phase::kPrefill},
        Cell{&pp, 1, SIGKILL, Phase::kDecode}, Cell{&pp, 0, SIGSTOP, Phase::kPrefill},
        Cell{&moving, 0, SIGKILL, Phase::kDecode}, Cell{&dp, kFrontend, SIGKILL, Phase::kDecode}}) {
    RunCell(cell, random);
  }
}

class FailureMatrix : public FailureTest {};

std::vector<Cell> AllCells() {
  std::vector<Cell> cells;
  for (const Layout& layout : kLayouts) {
    for (const Phase phase : {Phase::kStart, Phase::kIdle, Phase::kPrefill, Phase::kDecode}) {
      cells.push_back({&layout, kFrontend, SIGKILL, phase});
      for (int rank = 0; rank < layout.num_ranks; ++rank) {
        for (const int signal : {SIGKILL, SIGSTOP}) cells.push_back({&layout, rank, signal, phase});
      }
    }
  }
  return cells;
}

TEST_F(FailureMatrix, EveryRankAtEveryMoment) {
  const int64_t num_rounds = NumberOf("MOEBIUS_FAILURE_ROUNDS", 100);
  const auto seed =
      static_cast<unsigned>(NumberOf("MOEBIUS_FAILURE_SEED", std::random_device()() % 1000000 + 1));
  fmt::print("{} rounds of {} cells, MOEBIUS_FAILURE_SEED={}\n", num_rounds, AllCells().size(),
             seed);
  std::mt19937 random(seed);
  std::vector<Cell> cells;
  // By the signal to a rank: killed, stopped.
  Times longest[2];
  Cell slowest[2];
  int num_failed = 0;
  for (int64_t round = 0; round < num_rounds; ++round) {
    if (cells.empty()) {
      cells = AllCells();
      std::shuffle(cells.begin(), cells.end(), random);
    }
    const Cell cell = cells.back();
    cells.pop_back();
    const auto num_before =
        testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
    const auto begin = Clock::now();
    const Times times = RunCell(cell, random);
    const bool is_well =
        testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() ==
        num_before;
    if (!is_well) ++num_failed;
    fmt::print("{:3} {}: error after {} ms, exit after {} ms, {} ms in all{}\n", round, cell.Name(),
               times.error, times.exit, MillisecondsFrom(begin), is_well ? "" : "  FAILED");
    std::fflush(stdout);
    if (server_ != 0) {
      kill(server_, SIGKILL);
      Wait(server_);
      server_ = 0;
    }
    if (cell.victim == kFrontend) continue;
    const int kind = cell.signal == SIGSTOP ? 1 : 0;
    if (times.error > longest[kind].error) slowest[kind] = cell;
    longest[kind].error = std::max(longest[kind].error, times.error);
    longest[kind].exit = std::max(longest[kind].exit, times.exit);
  }
  for (const int kind : {0, 1}) {
    fmt::print("ranks {}: longest time to the last error {} ms{}, to the exit {} ms\n",
               kind == 0 ? "killed" : "stopped", longest[kind].error,
               longest[kind].error < 0 ? "" : " (" + slowest[kind].Name() + ")",
               longest[kind].exit);
  }
  fmt::print("{} of {} rounds failed\n", num_failed, num_rounds);
}

}  // namespace
}  // namespace moebius
