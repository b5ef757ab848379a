// Ranks that have nothing to do, and ranks that are kept from doing it all together.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <nlohmann/json.hpp>
#include <string>

#include "serve_runner.h"

namespace moebius {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

const std::string kModel = std::string(MOEBIUS_SOURCE_DIR) + "/models/demo";

// That all threads of a process have been on a cpu.
double CpuSeconds(pid_t pid) {
  double nanoseconds = 0;
  for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid))) {
    nanoseconds += std::atof(ReadFile(task.path() / "schedstat").c_str());
  }
  return nanoseconds * 1e-9;
}

constexpr int kTokens = 600;  // of a call that lasts through the pause

class RanksRestTest : public ServeTest {};

TEST_F(RanksRestTest, IdleRanksCostNothing) {
  constexpr size_t kRanks = 8;
  Serve({kModel, "-dp", std::to_string(kRanks), "-ep", "--max-num-seqs", "4",
         "--kv-cache-memory-bytes", "8M"});
  const json body = {{"prompt", {5, 6, 7}}, {"max_tokens", 4}};
  EXPECT_EQ(Fetch("POST", "/v1/completions", body.dump()).status, 200);  // they have worked
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const std::vector<pid_t> ranks = ChildrenOf(server_);
  ASSERT_EQ(ranks.size(), kRanks);
  ASSERT_GT(CpuSeconds(ranks[0]), 0);
  // Of the busiest, in the best of three seconds: what others do on the machine costs caches.
  double share = 1;
  for (int second = 0; second < 3; ++second) {
    std::vector<double> before;
    for (const pid_t rank : ranks) before.push_back(CpuSeconds(rank));
    const Clock::time_point begin = Clock::now();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    double most = 0;
    for (size_t i = 0; i < kRanks; ++i) most = std::max(most, CpuSeconds(ranks[i]) - before[i]);
    share = std::min(share, most / std::chrono::duration<double>(Clock::now() - begin).count());
  }
  fmt::print("{} idle ranks: the busiest takes {:.2f} % of a cpu\n", kRanks, share * 100);
  EXPECT_LT(share, 0.01);
  EXPECT_EQ(End(SIGTERM), 0);
}

// As by `docker pause`: longer than any step may take, but nobody is late.
TEST_F(RanksRestTest, APauseOfAllProcessesIsNoFailure) {
  Serve({kModel, "-dp", "2", "-ep", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "32M",
         "--step-timeout", "5"});
  std::vector<pid_t> family = ChildrenOf(server_);
  ASSERT_EQ(family.size(), 2U);
  family.insert(family.begin(), server_);
  std::vector<std::future<net::HttpResponse>> calls;
  for (int rank = 0; rank < 2; ++rank) {
    calls.push_back(std::async(std::launch::async, [this, rank] {
      const json body = {{"prompt", {5, 6, 7}}, {"max_tokens", kTokens}, {"ignore_eos", true}};
      return Fetch("POST", "/v1/completions", body.dump(), "",
                   {{"X-data-parallel-rank", std::to_string(rank)}});
    }));
  }
  WaitForLoad();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  for (const auto& call : calls) {
    ASSERT_EQ(call.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  }
  for (const pid_t pid : family) kill(pid, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(6000));
  for (const pid_t pid : family) kill(pid, SIGCONT);
  for (auto& call : calls) {
    const net::HttpResponse response = call.get();
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(json::parse(response.body)["usage"]["completion_tokens"], kTokens);
  }
  EXPECT_EQ(Fetch("GET", "/health").status, 200);
  EXPECT_EQ(End(SIGTERM), 0) << ReadFile(folder_ + "server_err");
}

}  // namespace
}  // namespace moebius
