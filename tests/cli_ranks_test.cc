// Many ranks as a user has them: one rank's answers, where ranks run, and what they are seen to do.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "ranks_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

class AnswersTest : public RanksTest {
 protected:
  // Greedy and drawn, with log probabilities, longer and shorter than a block.
  std::string Requests() const {
    std::string lines;
    for (int i = 0; i < 6; ++i) {
      std::vector<int> prompt;
      for (int t = 0; t < 2 + 7 * i; ++t) prompt.push_back((11 * t + 5 * i) % 120);
      lines +=
          json{
              {"prompt_ids", prompt}, {"max_tokens", 8},    {"temperature", i % 2 == 0 ? 0.0 : 0.9},
              {"seed", 3 + i},        {"ignore_eos", true}, {"logprobs", 2}}
              .dump() +
          "\n";
    }
    return Write("requests.jsonl", lines);
  }

  std::string Answers(const std::string& model, const Args& more) const {
    const Finished finished =
        Run(Args{"run", model, "--input-file", Requests(), "--deterministic"} + kSmall + more);
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    return finished.out;
  }
};

TEST_F(AnswersTest, EveryLayoutGivesTheAnswersOfOneRank) {
  const std::string one = Answers(kV3, {});
  ASSERT_FALSE(one.empty());
  for (const Args& layout :
       std::vector<Args>{{"-tp", "2"},
                         {"-dp", "2", "-ep"},
                         {"-dp", "2"},
                         {"-pp", "2"},
                         {"-tp", "2", "-dp", "2", "-ep", "--exchange-mode", "throughput"},
                         {"-dp", "3", "-ep", "--all2all-backend", "allgather_reducescatter"},
                         {"-tp", "2", "-ep", "--all2all-backend", "inproc"},
                         {"-dp", "2", "-ep", "--moe-config", R"({"max_num_tokens": 6})"}}) {
    EXPECT_EQ(Answers(kV3, layout), one) << fmt::format("{} {}", layout[0], layout[1]);
  }
  const std::string dense = kGolden + "llama3";
  EXPECT_EQ(Answers(dense, {"-tp", "2"}), Answers(dense, {}));
}

TEST_F(RanksTest, AServerGivesThemTooAndLeavesNothingBehind) {
  std::vector<std::string> bodies;
  for (int i = 0; i < 4; ++i) {
    bodies.push_back(json{
        {"prompt", {5 + i, 6, 7}},
        {"max_tokens", 12},
        {"temperature", 0},
        {"ignore_eos", true},
        {"logprobs", 3},
        {"return_token_ids",
         true}}.dump());
  }
  std::vector<json> choices[2];
  for (const bool many : {false, true}) {
    url_.clear();
    Serve(Args{kV3, "--deterministic"} + kSmall +
          (many ? Args{"-tp", "2", "-dp", "2", "-ep"} : Args{}));
    const std::vector<pid_t> ranks = many ? RanksOf(server_, 4) : ChildrenOf(server_);
    if (!many) {
      EXPECT_TRUE(ranks.empty()) << "one rank is a part of the server";
    }
    for (const std::string& body : bodies) {
      const net::HttpResponse response = Fetch("POST", "/v1/completions", body);
      EXPECT_EQ(response.status, 200) << response.body;
      choices[many ? 1 : 0].push_back(json::parse(response.body)["choices"]);
    }
    if (many) {
      EXPECT_TRUE(Contains(ReadFile(folder_ + "server_out"), " on 4 ranks (TP2+DP2+EP): API at"));
      EXPECT_TRUE(Contains(ReadFile(folder_ + "server_err"), "mode auto: latency below"));
      EXPECT_EQ(Fetch("GET", "/health").status, 200);
    }
    EXPECT_EQ(End(SIGTERM), 0);
    ExpectGone(ranks);
  }
  EXPECT_EQ(choices[0], choices[1]);
}

// Which rank answers is the caller's to say.
TEST_F(RanksTest, ARequestGoesToTheDataParallelRankThatItNames) {
  const std::string log = folder_ + "steps.jsonl";
  Serve(Args{kV3, "-dp", "3", "-ep", "--step-log", log} + kSmall);
  const std::vector<int> order = {2, 0, 1, 1, 2, 2};
  for (const int rank : order) {
    const net::HttpResponse response = Fetch("POST", "/v1/completions", LongRequest(4), "",
                                             {{"X-data-parallel-rank", std::to_string(rank)}});
    EXPECT_EQ(response.status, 200) << response.body;
  }
  const net::HttpResponse wrong =
      Fetch("POST", "/v1/completions", LongRequest(4), "", {{"X-data-parallel-rank", "3"}});
  EXPECT_EQ(wrong.status, 400) << wrong.body;
  EXPECT_TRUE(Contains(wrong.body, "expected a rank from 0 to 2")) << wrong.body;
  EXPECT_EQ(End(SIGTERM), 0);
  // Every prompt has three tokens, of which none makes a block.
  std::vector<int> prompts(3);
  std::istringstream lines(ReadFile(log));
  for (std::string line; std::getline(lines, line);) {
    const json step = json::parse(line);
    prompts.at(step["dp_rank"].get<size_t>()) += step["prefill_tokens"].get<int>();
  }
  EXPECT_EQ(prompts, (std::vector<int>{3, 6, 9}));
}

// What is said at the start of where ranks run is where their threads may run.
TEST_F(RanksTest, EachRankIsBoundAsTheServerSays) {
  Serve(Args{kV3, "-dp", "2", "-ep"} + kSmall);
  const std::vector<pid_t> ranks = RanksOf(server_, 2);
  const std::string said = ReadFile(folder_ + "server_err");
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    std::string device;
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", ranks[rank]))) {
      if (ReadFile(task.path() / "comm") != "device\n") continue;
      const std::string status = ReadFile(task.path() / "status");
      const std::string field = "Cpus_allowed_list:\t";
      const size_t at = status.find(field);
      ASSERT_NE(at, std::string::npos);
      device = status.substr(at + field.size(), status.find('\n', at) - at - field.size());
    }
    EXPECT_FALSE(device.empty()) << "rank " << rank << " has no device thread";
    std::string line;
    std::istringstream lines(said);
    while (std::getline(lines, line) &&
           !line.starts_with(fmt::format("moebius: rank {}: ", rank)) &&
           !line.starts_with("moebius: ranks 0-1: ")) {
    }
    EXPECT_TRUE(Contains(line + ",", fmt::format(" on cpus {},", device)))
        << "runs on " << device << ": " << said;
    EXPECT_TRUE(Contains(line, "memory of node ")) << said;
  }
  EXPECT_EQ(End(SIGTERM), 0);
}

TEST_F(RanksTest, ATraceHasEveryRankAndStagesThatOverlap) {
  std::string lines;
  for (int i = 0; i < 16; ++i) {
    lines += json{{"prompt_ids", {5, 6, 7 + i}}, {"max_tokens", 40}, {"ignore_eos", true}}.dump();
    lines += "\n";
  }
  const std::string path = folder_ + "trace.json";
  const Finished finished = Run(Args{"run", kV3, "--input-file", Write("many.jsonl", lines),
                                     "--trace", path, "-pp", "2", "-dp", "2", "-ep"} +
                                Args{"--max-num-seqs", "8", "--max-model-len", "64"});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  const json trace = json::parse(ReadFile(path), nullptr, false);
  ASSERT_TRUE(trace.is_array()) << ReadFile(path).substr(0, 500);

  struct Interval {
    double begin;
    double end;
  };
  std::vector<Interval> layers[4];  // by rank; 0 and 1 are the stages of one data-parallel group
  int passes[4] = {};
  for (const json& event : trace) {
    if (event.value("ph", "") != "X") continue;
    const int rank = event.at("pid");
    ASSERT_TRUE(rank >= 0 && rank < 4) << event;
    passes[rank] += event.at("name") == "pass";
    if (event.at("name") != "layers") continue;
    const double begin = event.at("ts");
    layers[rank].push_back({begin, begin + event.at("dur").get<double>()});
  }
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_GT(passes[rank], 20) << "rank " << rank;
    EXPECT_GT(layers[rank].size(), 20U) << "rank " << rank;
  }
  for (const int first : {0, 2}) {
    const int64_t both = std::ranges::count_if(layers[first], [&](const Interval& a) {
      return std::ranges::any_of(
          layers[first + 1], [&](const Interval& b) { return a.begin < b.end && b.begin < a.end; });
    });
    EXPECT_GT(both, 0) << "stages " << first << " and " << first + 1;
  }
}

TEST_F(RanksTest, BenchmarksRunOnRanks) {
  const Finished finished =
      Run({"bench", "throughput", kV3, "-dp", "2", "-ep", "--num-prompts", "6", "--input-len", "8",
           "--output-len", "8", "--output-json", folder_ + "figures.json"});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.out, "2 ranks, 2 threads")) << finished.out;
  EXPECT_EQ(json::parse(ReadFile(folder_ + "figures.json"))["ranks"], 2);
}

}  // namespace
}  // namespace moebius
