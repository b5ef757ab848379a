// Where the threads of a deployment's ranks run, as the system has it.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "rank/rank_cpus.h"
#include "rank/testing/golden_ranks.h"

namespace moebius::rank {
namespace {

using Cpus = std::vector<int>;

// Of this process's threads with that name.
std::vector<Cpus> CpusOfThreads(const std::string& name) {
  std::vector<Cpus> all;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string comm;
    std::getline(std::ifstream(task.path() / "comm"), comm);
    if (comm != name) continue;
    cpu_set_t set;
    CPU_ZERO(&set);
    const int tid = std::stoi(task.path().filename());
    EXPECT_EQ(sched_getaffinity(tid, sizeof(set), &set), 0);
    Cpus& cpus = all.emplace_back();
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  std::ranges::sort(all);
  return all;
}

RankOptions OptionsOf(int dp) { return testing::GoldenOptions(testing::Parallel(1, dp, 1, true)); }

void ExpectThreadsAsPlanned(int num_ranks) {
  std::vector<Cpus> device;
  std::vector<Cpus> engine;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const auto cpus = PlanRankCpus(rank, num_ranks, 1);
    ASSERT_TRUE(cpus);
    device.push_back(cpus->compute.is_group ? cpus->compute.cpus : Cpus{cpus->compute.cpus[0]});
    std::ranges::sort(device.back());
    engine.push_back(cpus->control);
    std::ranges::sort(engine.back());
  }
  std::ranges::sort(device);
  std::ranges::sort(engine);
  const auto client = StartThreadRanks(OptionsOf(num_ranks));
  ASSERT_TRUE(client) << client.error().message();
  EXPECT_EQ(CpusOfThreads("device"), device);
  // It gives itself its name when it first runs.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (CpusOfThreads("engine").size() < engine.size() &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(CpusOfThreads("engine"), engine);
}

TEST(RankBinding, EachRankOnItsOwnCpus) {
  ExpectThreadsAsPlanned(static_cast<int>(std::min<size_t>(platform::AllowedCpus().size(), 4)));
}

TEST(RankBinding, MoreRanksThanCpusInGroups) {
  ExpectThreadsAsPlanned(static_cast<int>(platform::AllowedCpus().size()) + 1);
}

}  // namespace
}  // namespace moebius::rank
