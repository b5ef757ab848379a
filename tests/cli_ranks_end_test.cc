// Many ranks as a user has them: an end in order whatever happens to any process, and who is
// refused.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <future>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "ranks_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

TEST_F(RanksTest, AKilledRankEndsTheServerWithItsName) {
  Serve(Args{kV3, "-dp", "2", "-ep", "--max-model-len", "512"});
  const std::vector<pid_t> ranks = RanksOf(server_, 2);
  std::vector<std::future<net::HttpResponse>> calls;
  for (int i = 0; i < 4; ++i) {
    calls.push_back(std::async(std::launch::async,
                               [&] { return Fetch("POST", "/v1/completions", LongRequest(500)); }));
  }
  WaitForLoad();
  kill(ranks[1], SIGKILL);
  int num_failed = 0;
  for (auto& call : calls) {
    const net::HttpResponse response = call.get();
    if (response.status == 200) continue;
    ++num_failed;
    EXPECT_EQ(response.status, 503) << response.body;
    EXPECT_TRUE(json::parse(response.body).contains("error")) << response.body;
  }
  EXPECT_GT(num_failed, 0);
  const net::HttpResponse health = Fetch("GET", "/health");
  EXPECT_EQ(health.status, 503);
  const std::string cause =
      fmt::format("rank 1 (process {}) was killed by signal 9 (Killed)", ranks[1]);
  EXPECT_TRUE(Contains(health.body, cause)) << health.body;
  const int exit_code = Wait(server_);
  server_ = 0;
  EXPECT_EQ(exit_code, 1);
  EXPECT_TRUE(Contains(ReadFile(folder_ + "server_err"), cause))
      << ReadFile(folder_ + "server_err");
  ExpectGone(ranks);
}

TEST_F(RanksTest, AnEndInOrderIsTheServersToGive) {
  Serve(Args{kV3, "-dp", "2", "-ep", "--max-model-len", "512"});
  const std::vector<pid_t> ranks = RanksOf(server_, 2);
  auto call = std::async(std::launch::async,
                         [&] { return Fetch("POST", "/v1/completions", LongRequest(300)); });
  WaitForLoad();
  // As a service manager does it, or a terminal.
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    for (const pid_t rank : ranks) kill(rank, signal);
  }
  EXPECT_EQ(End(SIGTERM), 0) << ReadFile(folder_ + "server_err");
  const net::HttpResponse response = call.get();
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(json::parse(response.body)["usage"]["completion_tokens"], 300);
  ExpectGone(ranks);
}

TEST_F(RanksTest, WhomNoEngineHasRoomForIsToldToComeAgain) {
  // Each rank's blocks hold one such request: the others wait, more than may.
  Serve(Args{kV3, "-dp", "2", "-ep", "--max-model-len", "400", "--block-size", "16",
             "--num-kv-blocks", "26", "--max-num-seqs", "8", "--max-num-waiting", "1"});
  std::vector<std::future<net::HttpResponse>> calls;
  for (int i = 0; i < 10; ++i) {
    calls.push_back(std::async(std::launch::async,
                               [&] { return Fetch("POST", "/v1/completions", LongRequest(390)); }));
  }
  int num_done = 0;
  int num_refused = 0;
  for (auto& call : calls) {
    const net::HttpResponse response = call.get();
    num_done += response.status == 200 ? 1 : 0;
    num_refused += response.status == 429 ? 1 : 0;
    EXPECT_TRUE(response.status == 200 || response.status == 429) << response.body;
  }
  EXPECT_GT(num_done, 0);
  EXPECT_GT(num_refused, 0);
  EXPECT_TRUE(Contains(Fetch("GET", "/metrics").body,
                       fmt::format("moebius:queue_full_total{{model_name=\"{}\",engine=\"0\"}} {}",
                                   kV3, num_refused)))
      << num_refused;
  EXPECT_EQ(End(SIGTERM), 0);
}

TEST_F(RanksTest, AKilledRankEndsAnAnswer) {
  Write("stdin", "");
  const json request = {{"prompt_ids", {5}}, {"max_tokens", 500}, {"ignore_eos", true}};
  std::string lines;
  for (int i = 0; i < 64; ++i) lines += request.dump() + "\n";
  const std::string requests = Write("long.jsonl", lines);
  const pid_t batch = Start({"run", kV3, "--input-file", requests, "-tp", "2"});
  const std::vector<pid_t> ranks = RanksOf(batch, 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  kill(ranks[0], SIGKILL);
  EXPECT_EQ(Wait(batch), 1);
  EXPECT_TRUE(Contains(ReadFile(folder_ + "stderr"),
                       fmt::format("rank 0 (process {}) was killed", ranks[0])))
      << ReadFile(folder_ + "stderr");
  ExpectGone(ranks);
}

TEST_F(RanksTest, AnInterruptAtAnyTimeLeavesNoRank) {
  for (const int delay : {0, 20, 100, 400}) {
    Write("stdin", "");
    const pid_t run = Start({"run", kV3, "--prompt-ids", "5", "--max-tokens", "500", "--ignore-eos",
                             "-dp", "2", "-ep"});
    const std::vector<pid_t> ranks = RanksOf(run, 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(delay));
    kill(run, SIGINT);
    const int exit_code = Wait(run);
    EXPECT_TRUE(exit_code == 130 || exit_code == 0) << exit_code;  // 0: it was faster
    ExpectGone(ranks);
  }
}

}  // namespace
}  // namespace moebius
