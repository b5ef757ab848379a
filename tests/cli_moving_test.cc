// Experts that move while a server runs, as a user sees them.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>

#include "ranks_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

// Swaps at random, so that there is something to say whatever the load.
TEST_F(RanksTest, ExpertsThatMoveAreTold) {
  const std::string log = folder_ + "steps.jsonl";
  Serve(Args{kV3, "-dp", "2", "-ep", "--step-log", log, "--print-load", "--enable-eplb",
             "--eplb-config",
             R"({"num_redundant_experts": 2, "step_interval": 4, "random_moves": 1})"} +
        kSmall);
  EXPECT_TRUE(Contains(ReadFile(folder_ + "server_err"),
                       "experts: 18 slots for 16 experts on 2 ranks, 9 each; placement in order; "
                       "up to 8 layers may change every 4 steps\n"))
      << ReadFile(folder_ + "server_err");
  json balance;
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(Fetch("POST", "/v1/completions", LongRequest(32)).status, 200);
    balance = json::parse(Fetch("GET", "/moebius/stats?experts=0").body)["balance"];
    if (balance["epoch"] >= 2) break;
  }
  EXPECT_EQ(Fetch("POST", "/v1/completions", LongRequest(4)).status, 200);  // steps behind that
  EXPECT_GE(balance["epoch"], 2) << balance;
  EXPECT_GE(balance["moves"]["committed"], 2) << balance;
  EXPECT_GE(balance["moves"]["slots"], 2) << balance;
  EXPECT_EQ(balance["moves"]["dropped"], 0) << balance;
  EXPECT_GT(balance["moves"]["steps"], 0) << balance;
  EXPECT_GT(balance["moves"]["stall_seconds"], 0) << balance;
  EXPECT_GT(balance["locality"]["rank"], balance["locality"]["copies"]) << balance;
  EXPECT_GT(balance["locality"]["copies"], 0) << balance;
  EXPECT_EQ(balance["locality"]["node"], 1) << balance;
  const std::string metrics = Fetch("GET", "/metrics").body;
  const std::string labels = "{model_name=\"" + kV3 + "\",engine=\"0\"";
  EXPECT_TRUE(Contains(metrics, "moebius:eplb_plans_total" + labels + ",result=\"dropped\"} 0\n"))
      << metrics;
  EXPECT_FALSE(Contains(metrics, "moebius:eplb_moved_slots_total" + labels + "} 0\n"));
  EXPECT_EQ(End(SIGTERM), 0);
  const std::string load = ReadFile(folder_ + "server_out");
  EXPECT_TRUE(Contains(load, "placement changed ")) << load;
  EXPECT_FALSE(Contains(load, "placement changed 0 times")) << load;
  std::map<int, int64_t> epochs;  // by data-parallel rank: of its last step
  int64_t newest = 0;
  std::istringstream lines(ReadFile(log));
  for (std::string line; std::getline(lines, line);) {
    const json step = json::parse(line);
    const int64_t epoch = step["epoch"];
    const int64_t before = std::exchange(epochs[step["dp_rank"].get<int>()], epoch);
    EXPECT_GE(epoch, before) << line;
    newest = std::max(newest, epoch);
    EXPECT_EQ(step["rank_imbalance"].size(), 2U) << line;
    EXPECT_EQ(step["effective_ratio"].size(), 2U) << line;
    EXPECT_GT(step["effective_ratio_expected"], 0) << line;
  }
  EXPECT_GE(newest, balance["epoch"]);
}

}  // namespace
}  // namespace moebius
