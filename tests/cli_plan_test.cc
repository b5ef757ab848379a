// `moebius plan` as a user runs it: no weights, no GPU.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
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

// 61 layers of 512 bytes, 4 scales and 64 numbers of 2 bytes; GQA's have no scales.
TEST_F(PlanTest, AnFp8CacheOfLatentsHasItsScales) {
  const auto bytes = [&](const char* model, const char* kv) {
    const json plan = Json({"plan", model, "-tp", "8", "--kv-cache-dtype", kv});
    return plan["layouts"][0]["kv"]["bytes_per_token"].get<double>();
  };
  EXPECT_NEAR(bytes("deepseek-ai/DeepSeek-R1", "fp8"), 61 * 656, 1);
  EXPECT_EQ(bytes("deepseek-ai/DeepSeek-R1", "auto"), 61 * 1152);
  EXPECT_EQ(bytes("Qwen/Qwen3-235B-A22B", "fp8") * 2, bytes("Qwen/Qwen3-235B-A22B", "auto"));
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

TEST_F(PlanTest, ThisMachinesCpusAreMeasured) {
  const Args own = {"plan", std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/deepseek_v3",
                    "--device", "cpu"};
  const json plan =
      Json(own + Args{"--gpus", "2", "--concurrency", "4", "--isl", "32", "--osl", "8"});
  EXPECT_EQ(plan["device"]["name"], "cpu");
  // Whatever machine this is: more than a disk, less than ten GPUs.
  EXPECT_GT(plan["device"]["hbm_bytes_per_s"], 1e8);
  EXPECT_LT(plan["device"]["hbm_bytes_per_s"], 1e14);
  EXPECT_GT(plan["device"]["bf16_flops"], 1e8);
  EXPECT_TRUE(plan["width"].empty());
  std::set<std::string> names;
  for (const json& layout : plan["layouts"]) {
    names.insert(layout["layout"]);
    EXPECT_GT(layout["output_tokens_per_s"], 0) << layout;
  }
  for (const char* name : {"TP2", "TP2+EP", "DP2", "DP2+EP", "PP2"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  const Finished one = Run(own + Args{"--tensor-parallel-size", "2", "--enable-expert-parallel"});
  EXPECT_EQ(one.exit_code, 0) << one.err;
  EXPECT_TRUE(Contains(one.out, " TFLOP/s, ") && Contains(one.out, "all-to-all")) << one.out;
  EXPECT_TRUE(Contains(Run({"plan", "--list-devices"}).out, "cpu\n"));
  for (const Args& wrong : {Args{"--nodes", "1"}, Args{"--gpus", "1-4"}}) {
    const Finished refused = Run(own + wrong);
    EXPECT_NE(refused.exit_code, 0);
    EXPECT_TRUE(Contains(refused.err, "--device cpu") && Contains(refused.err, "expected"))
        << refused.err;
  }
}

TEST_F(PlanTest, ExpertCountsAreChecked) {
  const std::string wrong = Write("counts.json", "[1, 2, 3]");
  const Finished finished = Run(kR1 + Args{"--gpus", "8", "--expert-counts", wrong});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.err, "3 counts")) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "256 experts")) << finished.err;
  for (const auto& [counts, part] : std::vector<std::pair<json, std::string>>{
           {json(std::vector<int64_t>(256, 0)), "all counts of layer 0 are 0"},
           {json(std::vector<int64_t>(256, int64_t{1} << 62)), "add up to more than"},
           {json(std::vector<uint64_t>(256, uint64_t{1} << 63)),
            "expected a JSON list of counts"}}) {
    const Finished bad =
        Run(kR1 + Args{"--gpus", "8", "--expert-counts", Write("counts.json", counts.dump())});
    EXPECT_EQ(bad.exit_code, 1);
    EXPECT_TRUE(Contains(bad.err, part)) << bad.err;
  }
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
           {kR1 + Args{"--gpus", "x"}, {"--gpus", "'x'", "8-64"}, 2},
           {kR1 + Args{"--gpus", "8", "-tp", "4"}, {"4 GPUs", "8"}, 1},
           {kR1 + Args{"--gpus", "8", "--objective", "speed"}, {"'speed'", "throughput"}, 2},
           {kR1 + Args{"--gpus", "8", "--concurrency", "0"}, {"--concurrency", "0", "1"}, 2},
           {kR1 + Args{"--gpus", "8", "--gpu-memory-utilization", "1.5"}, {"1.5", "at most 1"}, 2},
           {kR1 + Args{"--gpus", "8", "--device", "h2000"}, {"h2000", "h200"}, 2},
           {kR1 + Args{"--gpus", "8", "--kv-cache-dtype", "int3"}, {"int3", "fp8"}, 2},
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

// No number crashes, hangs or overflows: the message names the flag, the value and what would do.
TEST_F(PlanTest, NumbersHaveUpperBounds) {
  const std::string most = "9223372036854775807";
  for (const auto& [args, parts] : std::vector<std::pair<Args, std::vector<std::string>>>{
           {{"-tp", "65536", "-dp", "65536"}, {"--tensor-parallel-size", "65536", "4096"}},
           {{"-tp", "99999999999"}, {"--tensor-parallel-size", "99999999999", "4096"}},
           {{"-tp", "4096", "-dp", "4096"}, {"4096 x --data-parallel-size 4096", "at most"}},
           {{"-tp", "46341", "-dp", "46341"}, {"46341", "4096"}},
           {{"-dp", "100000", "-ep"}, {"--data-parallel-size is 100000", "1 to 4096"}},
           {{"-dp", "8", "-ep", "--enable-eplb", "--num-redundant-experts", "2000000000"},
            {"--num-redundant-experts is 2000000000", "0 to 65536"}},
           {{"--gpus", "8", "--max-num-batched-tokens", most},
            {"--max-num-batched-tokens", most, "16777216"}},
           {{"--gpus", "8", "--concurrency", most}, {"--concurrency", most, "1000000"}},
           {{"--gpus", "8", "--isl", most}, {"--isl", most, "16777216"}},
           {{"--gpus", "8", "--osl", most}, {"--osl", most, "16777216"}},
           {{"--gpus", "8", "--gpu-hour-price", "1e308"}, {"--gpu-hour-price", "1e+308"}},
           {{"--gpus", "8", "--zipf", "inf"}, {"--zipf is inf", "0 to 16"}},
           {{"--gpus", "8", "--tpot-ms", "nan"}, {"--tpot-ms is nan"}},
           {{"--nodes", "1000000000"}, {"--nodes is 1000000000", "1 to 4096"}},
           {{"--nodes", "1000"}, {"--nodes is 1000", "8000", "512 nodes"}},
           {{"-dcp", "0", "--gpus", "8"}, {"--decode-context-parallel-size is 0"}},
       }) {
    const Finished finished = Run(kR1 + args);
    EXPECT_TRUE(finished.exit_code == 1 || finished.exit_code == 2) << finished.err;
    for (const std::string& part : parts) {
      EXPECT_TRUE(Contains(finished.err, part)) << part << " in " << finished.err;
    }
  }
  // At the bounds themselves there is an answer.
  for (const Args& args : std::vector<Args>{
           {"-dp", "4096", "-ep"},
           {"--gpus", "4096"},
           {"--gpus", "8", "--concurrency", "1000000"},
           {"--gpus", "8", "--isl", "16777216", "--osl", "16777216"},
           {"--gpus", "8", "--max-num-batched-tokens", "16777216"},
           {"-dp", "8", "-ep", "--enable-eplb", "--num-redundant-experts", "65536"}}) {
    const Finished finished = Run(kR1 + args);
    EXPECT_LE(finished.exit_code, 1) << finished.err;
    EXPECT_FALSE(finished.out.empty());
    EXPECT_FALSE(Contains(finished.out, "inf") && !Contains(finished.out, "info")) << finished.out;
  }
}

TEST_F(PlanTest, ExpertParallelismWithoutAnEffectIsSaidInASearch) {
  const Finished one = Run({"plan", "Qwen3-30B-A3B", "--gpus", "1", "--enable-expert-parallel"});
  EXPECT_EQ(one.exit_code, 0) << one.out;
  EXPECT_TRUE(Contains(one.out, "warning: enable_expert_parallel has no effect")) << one.out;
  EXPECT_TRUE(Contains(one.out, "[ep-inactive]")) << one.out;
  const std::string dense = Write(
      "config.json",
      R"({"model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32000,
          "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
          "intermediate_size": 12288, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
          "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false})");
  const Finished none = Run({"plan", dense, "--gpus", "8", "--enable-expert-parallel"});
  EXPECT_EQ(none.exit_code, 1);
  const size_t head = none.out.find("No layout holds");
  ASSERT_NE(head, std::string::npos) << none.out;
  EXPECT_TRUE(Contains(none.out, "has 0 routed")) << none.out;
  // A dense model's report does not speak of experts.
  const Finished tp = Run({"plan", dense, "-tp", "2"});
  EXPECT_EQ(tp.exit_code, 0) << tp.err << tp.out;
  EXPECT_TRUE(Contains(tp.out, "A GPU sends in one layer of")) << tp.out;
  EXPECT_FALSE(Contains(tp.out, "MoE layer")) << tp.out;
}

TEST_F(PlanTest, CommandsNameWhatServes) {
  const Finished shorter =
      Run({"plan", "deepseek-r1", "--gpus", "8", "--hf-overrides", R"({"num_hidden_layers": 30})"});
  EXPECT_TRUE(Contains(shorter.out, "vllm serve deepseek-ai/DeepSeek-R1 ")) << shorter.out;
  const json commands = Json({"plan", "deepseek-r1", "--gpus", "8", "--hf-overrides",
                              R"({"num_hidden_layers": 30})"})["commands"];
  for (const char* program : {"vllm", "moebius"}) {
    EXPECT_TRUE(Contains(commands[program][0].get<std::string>(),
                         R"(--hf-overrides '{"num_hidden_layers":30}')"))
        << commands;
  }
  const std::string golden = std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/deepseek_v3";
  const json of_file = Json({"plan", golden + "/config.json", "--gpus", "1"})["commands"];
  EXPECT_TRUE(Contains(of_file["vllm"][0].get<std::string>(), "vllm serve " + golden + " "))
      << of_file;
}

TEST_F(PlanTest, DecodeContextParallelism) {
  const json plan = Json(kR1 + Args{"-tp", "8", "-dcp", "8"});
  EXPECT_EQ(plan["layouts"][0]["layout"], "TP8+DCP8");
  EXPECT_EQ(plan["layouts"][0]["kv"]["copies"], 1);
  EXPECT_TRUE(
      Contains(plan["commands"]["vllm"][0].get<std::string>(), "--decode-context-parallel-size 8"));
  EXPECT_TRUE(plan["commands"]["moebius"].empty());
  const Finished bad = Run(kR1 + Args{"-tp", "8", "-dcp", "3"});
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_TRUE(Contains(bad.out, "must divide tensor parallel size (8)")) << bad.out;
}

TEST_F(PlanTest, TheNearestLegalLayoutKeepsWhatWasWanted) {
  const auto flags = [&](const Args& args) {
    return Json(kR1 + args, 1)["nearest_legal"]["flags"].get<std::string>();
  };
  EXPECT_EQ(flags({"-dp", "8", "--enable-eplb"}),
            "--data-parallel-size 8 --enable-expert-parallel --enable-eplb");
  EXPECT_EQ(flags({"-dp", "8", "--num-redundant-experts", "8"}),
            "--data-parallel-size 8 --enable-expert-parallel --enable-eplb "
            "--num-redundant-experts 8");
  // The CSV of a layout that is not legal says why.
  const Finished csv = Run(kR1 + Args{"-tp", "3", "--format", "csv"});
  EXPECT_EQ(csv.exit_code, 1);
  EXPECT_TRUE(Contains(csv.out, "must be divisible by tensor parallel size (3) [heads-divisible]"))
      << csv.out;
}

// As serve takes them; vLLM, and so many nodes or stages, do not.
TEST_F(PlanTest, SlotsThatRanksDoNotDivideAreOurs) {
  const Args eplb = {"-ep", "--enable-eplb", "--num-redundant-experts", "5"};
  const Args uneven = eplb + Args{"-dp", "8"};
  const json plan = Json(kR1 + uneven);
  EXPECT_TRUE(Contains(plan["commands"]["moebius"][0].get<std::string>(), "redundant_experts\":5"));
  EXPECT_TRUE(plan["commands"]["vllm"].empty());
  const Finished finished = Run(kR1 + uneven);
  EXPECT_TRUE(Contains(finished.out, "261 slots on 8 ranks are uneven") &&
              Contains(finished.out, "[eplb-uneven]"))
      << finished.out;
  EXPECT_FALSE(Json(kR1 + Args{"-dp", "8", "-ep", "--enable-eplb"})["commands"]["vllm"].empty());
  for (const Args& others : {Args{"-dp", "8", "-tp", "2"}, Args{"-dp", "4", "-pp", "2"}}) {
    const Finished refused = Run(kR1 + eplb + others);
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_TRUE(Contains(refused.out, "[eplb-divisible]")) << refused.out;
  }
}

TEST_F(PlanTest, FilesAreNamedAsTheyAre) {
  const std::string bad = Write("odd.json", R"({"model_type": "deepseek_v3", "hidden_size": 1})");
  const Finished finished = Run({"plan", bad, "--gpus", "8"});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.err, bad + ":")) << finished.err;
  EXPECT_FALSE(Contains(finished.err, "odd.json/config.json")) << finished.err;
  const std::string device = Write("some.yaml", "base: h200\nname: my-h200\n");
  const Finished named = Run(kR1 + Args{"--gpus", "8", "--device", device});
  EXPECT_TRUE(Contains(named.out, "device  my-h200: ")) << named.out;
  EXPECT_TRUE(Contains(named.out, "on 8 x my-h200")) << named.out;
}

TEST_F(PlanTest, ThePlaybooksAnswerDoesNotDependOnOurMemory) {
  const auto answer = [&](const Args& args) {
    return Json(kR1 + Args{"--gpus", "8", "--rules", "playbook"} + args)["playbook"];
  };
  const json middle = answer({"--concurrency", "256"});
  EXPECT_EQ(middle["answer"], "TP8+EP or DP8+EP: the rules do not decide, measure");
  EXPECT_FALSE(middle["decided"]);
  EXPECT_EQ(middle["where_memory_is_tight"], "DP8+EP");
  EXPECT_EQ(answer({"--concurrency", "64", "--isl", "8000", "--osl", "2000"})["answer"], "TP8+EP");
  EXPECT_EQ(answer({"--concurrency", "512", "--isl", "100"})["answer"], "DP8+EP");
}

// The exchange that is faster here needs more buffers than this load leaves.
TEST_F(PlanTest, WhatHoldsTheLoadComesBeforeWhatIsFast) {
  const Finished finished = Run(kR1 + Args{"--gpus", "8", "--concurrency", "690"});
  EXPECT_TRUE(Contains(finished.out, "Recommended for latency: DP8+EP")) << finished.out;
}

TEST_F(PlanTest, NothingHoldsIsAFailureThatSaysHowMuchWould) {
  const Finished finished = Run(kR1 + Args{"--gpus", "8", "--concurrency", "100000"});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.out, "No layout holds")) << finished.out;
  EXPECT_TRUE(Contains(finished.out, "The largest cache")) << finished.out;
}

}  // namespace
}  // namespace moebius
