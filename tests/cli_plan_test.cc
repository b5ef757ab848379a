// `moebius plan` as a user runs it: no weights, no GPU.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "cli_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

const Args kR1 = {"plan", "deepseek-ai/DeepSeek-R1"};

class PlanTest : public CliTest {
 protected:
  json Json(const Args& args, int exit_code = 0) const {
    const Finished finished = Run(args + Args{"--format", "json"});
    EXPECT_EQ(finished.exit_code, exit_code) << finished.err;
    const json parsed = json::parse(finished.out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << finished.out;
    return parsed;
  }
};

TEST_F(PlanTest, RecommendsWithReasonsAndCommands) {
  const Finished table = Run(kR1 + Args{"--gpus", "8", "--concurrency", "64"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  for (const char* part : {"Recommended for latency:", "Runner-up:", "Density:", "8 of 256",
                           "vllm serve deepseek-ai/DeepSeek-R1", "moebius serve", "EP32/EP8"}) {
    EXPECT_TRUE(Contains(table.out, part)) << part;
  }
  std::istringstream lines(table.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST_F(PlanTest, ExpertsOfAGpuAtEp64) {
  const json plan =
      Json(kR1 + Args{"-dp", "64", "-ep", "--device", "h200", "--concurrency", "1024"});
  ASSERT_EQ(plan["layouts"].size(), 1u);
  EXPECT_EQ(plan["layouts"][0]["layout"], "DP64+EP");
  EXPECT_EQ(plan["layouts"][0]["experts_per_gpu"]["layer"], 4);
  EXPECT_EQ(plan["layouts"][0]["experts_per_gpu"]["total"], 232);
  EXPECT_EQ(plan["parts"].size(), 7u);
}

TEST_F(PlanTest, AnIllegalLayoutFailsWithItsRuleAndTheNearestLegalOne) {
  const Finished text = Run({"plan", "Qwen/Qwen3-235B-A22B", "-tp", "3"});
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_TRUE(
      Contains(text.out, "Total number of attention heads (64) must be divisible by tensor "))
      << text.out;
  EXPECT_TRUE(Contains(text.out, "nearest legal: ")) << text.out;
  const json parsed = Json({"plan", "Qwen/Qwen3-235B-A22B", "-tp", "3"}, 1);
  EXPECT_TRUE(parsed["layouts"].empty());
  EXPECT_FALSE(parsed["nearest_legal"]["flags"].get<std::string>().empty());

  // The flag alone is legal and has no effect.
  const Finished alone =
      Run(kR1 + Args{"-ep", "--device", "gb300", "--gpu-memory-utilization", "0.95"});
  EXPECT_TRUE(Contains(alone.out, "warning")) << alone.out;
}

TEST_F(PlanTest, FormatsAndOutputFile) {
  const Finished csv = Run(kR1 + Args{"--gpus", "8", "--format", "csv"});
  EXPECT_EQ(csv.exit_code, 0) << csv.err;
  EXPECT_EQ(csv.out.rfind("rank,layout,status,reason,", 0), 0u) << csv.out.substr(0, 100);
  const std::string path = folder_ + "plan.html";
  const Finished html = Run(kR1 + Args{"--nodes", "1", "--format", "html", "--output", path});
  EXPECT_EQ(html.exit_code, 0) << html.err;
  EXPECT_TRUE(html.out.empty());
  const std::string page = ReadFile(path);
  EXPECT_TRUE(Contains(page, "<svg"));
  EXPECT_FALSE(Contains(page, "http"));
  EXPECT_EQ(Run(kR1 + Args{"--gpus", "8", "--output", folder_ + "no/such/file"}).exit_code, 1);
}

TEST_F(PlanTest, PlaybookRulesAreAskedLiterally) {
  const auto answer = [&](const char* model, const char* concurrency) {
    return Json({"plan", model, "--gpus", "8", "--rules", "playbook", "--device", "mi300x",
                 "--kv-cache-dtype", "fp8", "--isl", "200", "--osl", "100", "--concurrency",
                 concurrency})["playbook"];
  };
  EXPECT_EQ(answer("deepseek-ai/DeepSeek-R1", "64")["answer"], "TP8+EP");
  EXPECT_EQ(answer("deepseek-ai/DeepSeek-R1", "1024")["answer"], "DP8+EP");
  EXPECT_EQ(answer("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "64")["answer"], "TP8");
  EXPECT_EQ(answer("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "512")["answer"], "DP8");
  const json open = answer("deepseek-ai/DeepSeek-R1", "256");
  EXPECT_FALSE(open["decided"]);
  EXPECT_EQ(open["layouts"].size(), 2u);
}

TEST_F(PlanTest, FoldersConfigFilesAndLists) {
  const std::string golden = std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/deepseek_v3";
  const std::string config = Write("plan.yaml", "gpus: 2\nconcurrency: 4\nisl: 100\nosl: 10\n");
  for (const std::string& model : {golden, golden + "/config.json"}) {
    EXPECT_EQ(Json({"plan", model, "--config", config})["question"]["concurrency"], 4) << model;
  }
  EXPECT_TRUE(Contains(Run({"plan", "--list-models"}).out, "deepseek-ai/DeepSeek-R1\n"));
  EXPECT_TRUE(Contains(Run({"plan", "--list-devices"}).out, "h200\n"));
  const Finished published = Run({"plan", "--published"});
  EXPECT_EQ(published.exit_code, 0);
  EXPECT_TRUE(Contains(published.out, "median error"));
}

TEST_F(PlanTest, ExpertCountsAreChecked) {
  const std::string wrong = Write("counts.json", "[1, 2, 3]");
  const Finished finished = Run(kR1 + Args{"--gpus", "8", "--expert-counts", wrong});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.err, "3 counts")) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "256 experts")) << finished.err;
  json even = json::array();
  json steep = json::array();
  for (int expert = 0; expert < 256; ++expert) {
    even.push_back(1000);
    steep.push_back(expert < 8 ? 30000 : 100);
  }
  const auto tpot = [&](const json& counts) {
    return Json(kR1 + Args{"-dp", "8", "-ep", "--concurrency", "512", "--expert-counts",
                           Write("counts.json", counts.dump())})["layouts"][0]["tpot_ms"]
        .get<double>();
  };
  EXPECT_GT(tpot(steep), tpot(even));
}

TEST_F(PlanTest, ErrorsNameTheFlagAndWhatWasExpected) {
  struct Case {
    Args args;
    std::vector<std::string> parts;
    int exit_code;
  };
  for (const Case& c : std::vector<Case>{
           {{"plan"}, {"MODEL is missing", "--list-models"}, 2},
           {kR1, {"--gpus", "--nodes"}, 1},
           {kR1 + Args{"--gpus", "x"}, {"--gpus", "'x'", "8-64"}, 1},
           {kR1 + Args{"--gpus", "8", "-tp", "4"}, {"4 GPUs", "8"}, 1},
           {kR1 + Args{"--gpus", "8", "--objective", "speed"}, {"'speed'", "throughput"}, 1},
           {kR1 + Args{"--gpus", "8", "--concurrency", "0"}, {"--concurrency", "0", "1"}, 2},
           {kR1 + Args{"--gpus", "8", "--gpu-memory-utilization", "1.5"}, {"1.5", "at most 1"}, 2},
           {kR1 + Args{"--gpus", "8", "--device", "h2000"}, {"h2000", "h200"}, 1},
           {kR1 + Args{"--gpus", "8", "--kv-cache-dtype", "int3"}, {"int3", "fp8"}, 1},
           {kR1 + Args{"--gpus", "8", "--dense-ffn", "pp"}, {"--dense-ffn", "pp", "tp"}, 1},
           {kR1 + Args{"--gpus", "8", "--all2all-backend", "carrier"}, {"carrier"}, 1},
           {kR1 + Args{"--gpus", "8", "--concurency", "3"}, {"did you mean --concurrency?"}, 2},
           {{"plan", "deepseek-ai/DeepSeek-R2", "--gpus", "8"}, {"DeepSeek-R2", "DeepSeek-R1"}, 1},
           {kR1 + Args{"--gpus", "8", "--rules", "none"}, {"--rules", "playbook"}, 2},
       }) {
    const Finished finished = Run(c.args);
    EXPECT_EQ(finished.exit_code, c.exit_code) << finished.err << finished.out;
    for (const std::string& part : c.parts) {
      EXPECT_TRUE(Contains(finished.err, part)) << part << " in " << finished.err;
    }
  }
}

TEST_F(PlanTest, NothingHoldsIsAFailureThatSaysHowMuchWould) {
  const Finished finished = Run(kR1 + Args{"--gpus", "8", "--concurrency", "100000"});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.out, "No layout holds")) << finished.out;
  EXPECT_TRUE(Contains(finished.out, "The largest cache")) << finished.out;
}

TEST_F(PlanTest, TakesATenthOfASecond) {
  double best = 1e9;  // of several: the machine may be busy
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(Run(kR1 + Args{"--gpus", "8"}).exit_code, 0);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(best, 0.1);
#endif
}

}  // namespace
}  // namespace moebius
