// The program as a user runs it: flags in, standard output, standard error and exit code out.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "cli_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

const std::string kGolden = std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/";

std::string Join(const std::vector<int>& ids) {
  std::string text;
  for (const int id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

struct GoldenCase {
  std::vector<int> input;
  std::vector<int> greedy;
};
// Those whose greedy path is not a matter of rounding.
std::vector<GoldenCase> GoldenCases(const std::string& name) {
  std::vector<GoldenCase> cases;
  const json file = json::parse(ReadFile(kGolden + name + "/golden.json"));
  for (const json& entry : file["cases"]) {
    if (entry["min_margin"].get<double>() < 1e-3) continue;
    cases.push_back({entry["input_ids"], entry["greedy"]});
  }
  return cases;
}

const Args kGreedy = {"--max-tokens", "16",      "--temperature", "0",
                      "--ignore-eos", "--dtype", "float32"};

TEST_F(CliTest, PrintIdsIsTheGreedyContinuation) {
  for (const char* name :
       {"deepseek_v2", "deepseek_v3", "deepseek_v3_yarn", "qwen3_moe", "mixtral", "llama4_text"}) {
    if (!std::filesystem::exists(kGolden + name)) continue;
    const std::vector<GoldenCase> cases = GoldenCases(name);
    ASSERT_FALSE(cases.empty()) << name;
    const GoldenCase& golden = cases.front();
    EXPECT_EQ(RunForIds(Args{kGolden + name, "--prompt-ids", Join(golden.input)} + kGreedy),
              golden.greedy)
        << name;
  }
}

TEST_F(CliTest, WhateverTheEngineIsSetToTheAnswerIsTheSame) {
  const GoldenCase golden = GoldenCases("deepseek_v3").back();
  const Args base = Args{kGolden + "deepseek_v3", "--prompt-ids", Join(golden.input)} + kGreedy;
  for (const Args& extra :
       std::vector<Args>{{"--block-size", "4"},
                         {"--max-num-batched-tokens", "3", "--max-num-seqs", "1"},
                         {"--no-enable-prefix-caching"},
                         {"--no-async-scheduling"},
                         {"--threads", "1"},
                         {"--max-model-len", "400"}}) {
    EXPECT_EQ(RunForIds(base + extra), golden.greedy) << extra.front();
  }
}

// Chunks, shared prefixes and ranks (processes that are told of it) change nothing in an fp8 cache
// either.
TEST_F(CliTest, AnFp8CacheGivesOneAnswerToo) {
  const std::string v3 = kGolden + "deepseek_v3";
  const GoldenCase golden = GoldenCases("deepseek_v3").back();
  const Args base =
      Args{v3, "--prompt-ids", Join(golden.input), "--kv-cache-dtype", "fp8_e4m3"} + kGreedy;
  const std::vector<int> answer = RunForIds(base);
  EXPECT_EQ(answer.size(), golden.greedy.size());
  for (const Args& extra :
       std::vector<Args>{{"--block-size", "4"},
                         {"--max-num-batched-tokens", "3", "--max-num-seqs", "1"},
                         {"--no-enable-prefix-caching"},
                         {"-tp", "2"}}) {
    EXPECT_EQ(RunForIds(base + extra), answer) << extra.front();
  }
  const auto bytes = [&](const Args& kv) {
    return json::parse(Run(Args{"inspect", v3, "--json"} + kv).out)["kv_bytes_per_token"]
        .get<int>();
  };
  const int layers = json::parse(ReadFile(v3 + "/config.json"))["num_hidden_layers"];
  // Latents of 32, a scale, 16 numbers of 2 bytes: 68, to a multiple of 16.
  EXPECT_EQ(bytes({"--kv-cache-dtype", "fp8"}), layers * 80);
  EXPECT_EQ(bytes({"--dtype", "bfloat16"}), layers * (32 + 16) * 2);
}

TEST_F(CliTest, BatchAnswersInTheOrderOfTheFile) {
  const std::vector<GoldenCase> cases = GoldenCases("deepseek_v3");
  std::string input;
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < cases.size(); ++i) {
      input += json{{"id", fmt::format("{}-{}", round, i)},
                    {"prompt_ids", cases[i].input},
                    {"max_tokens", 16 - round}}
                   .dump() +
               "\n";
    }
  }
  const std::string path = Write("in.jsonl", input);
  const std::string out = folder_ + "out.jsonl";
  const Finished finished = Run(
      Args{"run", kGolden + "deepseek_v3", "--input-file", path, "--output-file", out} + kGreedy);
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_EQ(finished.out, "");
  std::istringstream lines(ReadFile(out));
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < cases.size(); ++i) {
      std::string text;
      ASSERT_TRUE(std::getline(lines, text));
      const json line = json::parse(text);
      std::vector<int> expected = cases[i].greedy;
      expected.resize(static_cast<size_t>(16 - round));
      EXPECT_EQ(line["id"], fmt::format("{}-{}", round, i));
      EXPECT_EQ(line["token_ids"].get<std::vector<int>>(), expected);
      EXPECT_EQ(line["finish_reason"], "length");
      EXPECT_EQ(line["usage"]["prompt_tokens"], cases[i].input.size());
      EXPECT_EQ(line["usage"]["completion_tokens"], 16 - round);
    }
  }
}

TEST_F(CliTest, BadBatchLinesAreNamed) {
  std::string path =
      Write("in.jsonl", "{\"prompt_ids\": [5]}\n{\"prompt_ids\": [5], \"max_tokens\": \"x\"}\n");
  Finished finished = Run({"run", kGolden + "deepseek_v3", "--input-file", path});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.err, "in.jsonl:2") && Contains(finished.err, "max_tokens"))
      << finished.err;
  EXPECT_EQ(finished.out, "");

  // What only the engine can know fails that request and leaves the others alone.
  path =
      Write("in.jsonl",
            "{\"prompt_ids\": [5], \"max_tokens\": 2}\n{\"id\": \"b\", \"prompt_ids\": [99999]}\n");
  finished = Run({"run", kGolden + "deepseek_v3", "--input-file", path});
  EXPECT_EQ(finished.exit_code, 1);
  std::istringstream lines(finished.out);
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_EQ(json::parse(first)["token_ids"].size(), 2u);
  EXPECT_TRUE(Contains(json::parse(second)["error"], "99999")) << second;
  EXPECT_TRUE(Contains(finished.err, "in.jsonl:2")) << finished.err;
}

TEST_F(CliTest, TheSameSeedIsTheSameTextAloneOrInABatch) {
  const Args sampled = {kGolden + "deepseek_v3", "--temperature", "1.5", "--max-tokens", "20",
                        "--ignore-eos"};
  const std::vector<int> alone = RunForIds(sampled + Args{"--prompt-ids", "5,6,7", "--seed", "11"});
  EXPECT_EQ(RunForIds(sampled + Args{"--prompt-ids", "5,6,7", "--seed", "11"}), alone);
  EXPECT_NE(RunForIds(sampled + Args{"--prompt-ids", "5,6,7", "--seed", "12"}), alone);

  std::string input;
  for (int seed = 9; seed < 14; ++seed)
    input += json{{"prompt_ids", {5, 6, 7}}, {"seed", seed}}.dump() + "\n";
  const Finished batch =
      Run(Args{"run"} + sampled + Args{"--input-file", Write("in.jsonl", input)});
  ASSERT_EQ(batch.exit_code, 0) << batch.err;
  std::istringstream lines(batch.out);
  std::string line;
  for (int i = 0; i < 3; ++i) std::getline(lines, line);
  EXPECT_EQ(json::parse(line)["token_ids"].get<std::vector<int>>(), alone);
}

TEST_F(CliTest, StopTokensAndLogprobs) {
  const GoldenCase golden = GoldenCases("deepseek_v3").front();
  const json request = {
      {"prompt_ids", golden.input}, {"stop_token_ids", {golden.greedy[3]}}, {"logprobs", 2}};
  const Finished finished = Run(Args{"run", kGolden + "deepseek_v3", "--input-file",
                                     Write("in.jsonl", request.dump() + "\n")} +
                                kGreedy);
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  const json line = json::parse(finished.out);
  EXPECT_EQ(line["token_ids"].size(), 4u);
  EXPECT_EQ(line["finish_reason"], "stop");
  EXPECT_EQ(line["stop_reason"], golden.greedy[3]);
  ASSERT_EQ(line["logprobs"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const json& entry = line["logprobs"][i];
    EXPECT_EQ(entry["token_id"], golden.greedy[i]);
    EXPECT_LE(entry["logprob"].get<double>(), 0);
    EXPECT_EQ(entry["top_logprobs"].size(), 2u);
    EXPECT_EQ(entry["top_logprobs"][0]["token_id"], golden.greedy[i]);
  }
}

TEST_F(CliTest, DummyWeightsAndDenseMode) {
  const Args base = {
      kGolden + "deepseek_v3", "--prompt-ids", "5,6,7", "--max-tokens", "8", "--temperature", "0",
      "--ignore-eos"};
  EXPECT_EQ(RunForIds(base + Args{"--load-format", "dummy"}).size(), 8u);
  EXPECT_EQ(
      RunForIds(base + Args{"--load-format", "dummy", "--routing", "zipf:1.1", "--hf-overrides",
                            R"({"num_hidden_layers": 2, "vocab_size": 300})"})
          .size(),
      8u);
  const std::vector<int> dense = RunForIds(base + Args{"--moe-mode", "dense"});
  EXPECT_EQ(dense.size(), 8u);
  EXPECT_NE(dense, RunForIds(base));
}

TEST_F(CliTest, ErrorsNameWhatIsWrong) {
  struct Case {
    Args args;
    int exit_code;
    std::string part;
  };
  const std::string v3 = kGolden + "deepseek_v3";
  const std::vector<Case> cases = {
      {{"run", v3, "--prompt-ids", "5", "--max-token", "3"}, 2, "--max-tokens"},
      {{"rum", v3}, 2, "did you mean run?"},
      {{"run", kGolden + "qwen3_dense", "--prompt-ids", "5", "--kv-cache-dtype", "fp8"},
       2,
       "expected auto for a model of kind qwen3: only MLA's latents"},
      {{"run", v3}, 2, "--prompt"},
      {{"run", "What is it?"}, 2, "MODEL is 'What is it?': a question is asked with -p"},
      {{"run", v3, "What is it?"}, 2, "one argument too many; a question is asked with -p"},
      {{"What is it?"}, 2, "a question is asked with moebius run MODEL -p TEXT"},
      {{"run", v3, "--prompt-ids", "5", "--dtype", "int3"}, 2, "--dtype"},
      {{"run", v3, "--prompt-ids", "5", "-tp", "3"}, 2, "the nearest layout that is"},
      {{"run", folder_ + "nowhere", "--prompt-ids", "5"}, 1, "nowhere"},
      {{"run", folder_, "--prompt-ids", "5"}, 1, "config.json"},
      {{"run", v3, "-p", "hello"}, 1, "tokenizer.json"},
      {{"run", v3, "--prompt-ids", "5,512"}, 1, "512"},
      {{"run", v3, "--prompt-ids", "5", "--temperature", "-1"}, 2, "temperature"},
      {{"run", v3, "--prompt-ids", "5", "--stop", "x"}, 1, "tokenizer.json"},
      {{"run", v3, "--prompt-ids", "5", "--block-size", "0"}, 2, "--block-size is 0"},
      {{"run", v3, "--prompt-ids", "5", "--max-num-batched-tokens", "3000000000000000000"},
       2,
       "--max-num-batched-tokens is 3000000000000000000"},
      {{"run", v3, "--prompt-ids", "5", "--max-num-seqs", "16777216", "--max-num-batched-tokens",
        "16777216"},
       1,
       "--max-num-seqs (16777216)"},
      {{"run", v3, "--prompt-ids", "5", "--block-size", "1048576", "--num-kv-blocks", "2147483640"},
       1,
       "lower --kv-cache-memory-bytes or --num-kv-blocks"},
      {{"run", v3, "--prompt-ids", "5", "--max-model-len", "99999999"}, 2, "--max-model-len is"},
      {{"run", v3, "--prompt-ids", "5", "--threads", "99999"}, 2, "--threads is 99999"},
      {{"run", v3, "--prompt-ids", "5", "--gpu-memory-utilization", "1.5"},
       2,
       "--gpu-memory-utilization is 1.5"},
      {{"run", v3, "--prompt-ids", "5", "--seed", "-1"}, 2, "--seed is '-1'"},
      {{"run", v3, "--input-file", folder_}, 1, "is a folder"},
      {{"run", v3, "--input-file", Write("empty.jsonl", "\n\n")}, 1, "holds no request"},
      {{"bench", "latency", v3, "--batch-size", "1048576", "--input-len", "1000"},
       2,
       "--batch-size is 1048576"},
      {{"bench", "throughput", v3, "--num-prompts", "2147483647"}, 2, "--num-prompts"},
      {{"bench", "latency", v3, "--num-iters-warmup", "-5"}, 2, "--num-iters-warmup is '-5'"},
      {{"run", v3, "--prompt-ids", "5", "--routing", "uniform"}, 2, "routing"},
      {{"run", v3, "--prompt-ids", "5", "--hf-overrides", "{"}, 2, "--hf-overrides is '{'"},
      {{"run", v3, "--prompt-ids", "5", "--hf-overrides", R"({"model_type": "unheard_of"})"},
       1,
       "unheard_of"},
      {{"run", v3, "--prompt-ids", "5", "--hf-overrides", R"({"hidden_size": 64})"}, 1, "64"},
      {{"chat", v3}, 1, "chat template"},
  };
  for (const Case& c : cases) {
    const Finished finished = Run(c.args);
    EXPECT_EQ(finished.exit_code, c.exit_code) << c.part << ": " << finished.err;
    EXPECT_TRUE(Contains(finished.err, "moebius: error: ")) << finished.err;
    EXPECT_TRUE(Contains(finished.err, c.part))
        << "expected '" << c.part << "' in: " << finished.err;
    EXPECT_EQ(finished.out, "");
  }
}

TEST_F(CliTest, AnswersGoToStandardOutputAndFiguresToStandardError) {
  const Finished finished = Run(Args{"run", kGolden + "deepseek_v3", "--prompt-ids", "5,6,7",
                                     "--print-ids", "--trust-remote-code"} +
                                kGreedy);
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(finished.out, finished.LastLine() + "\n") << "one line, the ids";
  EXPECT_TRUE(Contains(finished.err, "3 prompt tokens") && Contains(finished.err, "16 tokens"))
      << finished.err;
  EXPECT_TRUE(Contains(finished.err, "--trust-remote-code is ignored")) << finished.err;
}

TEST_F(CliTest, AFullDiskIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const std::string v3 = kGolden + "deepseek_v3";
  const std::string lines = Write("in.jsonl", "{\"prompt_ids\": [5], \"max_tokens\": 2}\n");
  const Args batch = {"run", v3, "--input-file", lines};
  const auto check = [this](const Args& args, const std::string& name) {
    const Finished finished = Run(args);
    EXPECT_EQ(finished.exit_code, 1) << args[0];
    EXPECT_TRUE(Contains(finished.err, name) && Contains(finished.err, "No space left on device"))
        << finished.err;
  };
  check(batch + Args{"--output-file", "/dev/full"}, "--output-file: /dev/full");
  check({"bench", "latency", v3, "--output-len", "2", "--num-iters", "1", "--output-json",
         "/dev/full"},
        "--output-json: /dev/full");
  out_path_ = "/dev/full";
  for (const Args& args :
       {Args{"run", v3, "--prompt-ids", "5", "--max-tokens", "2"}, batch, Args{"inspect", v3},
        Args{"inspect", v3, "--json"}, Args{"--version"}, Args{"run", "--help"}}) {
    check(args, "error: standard output: ");
  }
}

TEST_F(CliTest, HelpAndVersion) {
  EXPECT_TRUE(Contains(Run({"--help"}).out, "bench"));
  EXPECT_TRUE(Contains(Run({"run", "--help"}).out, "--max-tokens"));
  EXPECT_EQ(Run({"--version"}).out.rfind("moebius ", 0), 0u);
}

TEST_F(CliTest, InspectAddsUpToTheFile) {
  const std::string model = kGolden + "deepseek_v3";
  const Finished finished = Run({"inspect", model, "--json"});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  const json report = json::parse(finished.out);
  uint64_t sum = report["header_bytes"].get<uint64_t>() + report["unused_bytes"].get<uint64_t>();
  for (const json& part : report["parts"]) sum += part["bytes"].get<uint64_t>();
  EXPECT_EQ(sum, std::filesystem::file_size(model + "/model.safetensors"));
}

// The layer that drafts is in the files' sizes, not in the memory of serving.
TEST_F(CliTest, InspectLeavesTheDraftLayerOutOfMemory) {
  const auto inspect = [this](const char* overrides, const Args& more) {
    return Run(Args{"inspect", kGolden + "deepseek_v3", "--load-format", "dummy", "--hf-overrides",
                    overrides} +
               more)
        .out;
  };
  const char* one = R"({"num_nextn_predict_layers": 1})";
  const json with = json::parse(inspect(one, {"--json"}));
  const json without = json::parse(inspect(R"({"num_nextn_predict_layers": 0})", {"--json"}));
  EXPECT_EQ(with["num_mtp_layers"], 1);
  EXPECT_GT(with["parameters"], without["parameters"]);
  EXPECT_EQ(with["packed_bytes"], without["packed_bytes"]);
  EXPECT_EQ(with["kv_bytes_per_token"], without["kv_bytes_per_token"]);
  EXPECT_TRUE(Contains(inspect(one, {}), "not loaded for serving yet"));
}

TEST_F(CliTest, BenchmarksReport) {
  const std::string out = folder_ + "bench.json";
  Finished finished = Run({"bench", "latency", kGolden + "deepseek_v3", "--input-len", "16",
                           "--output-len", "8", "--batch-size", "2", "--num-iters", "2",
                           "--num-iters-warmup", "1", "--output-json", out});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_EQ(finished.out.rfind("latency of " + kGolden + "deepseek_v3: ", 0), 0u) << finished.out;
  EXPECT_TRUE(
      Contains(finished.out, "batch size 2, input length 16, output length 8, 2 iterations"))
      << finished.out;
  json report = json::parse(ReadFile(out));
  EXPECT_GT(report["ttft_ms"]["p50"].get<double>(), 0);
  EXPECT_GT(report["output_tokens_per_second"].get<double>(), 0);
  EXPECT_GT(report["bandwidth_share"].get<double>(), 0);
  finished = Run({"bench", "throughput", kGolden + "deepseek_v3", "--input-len", "16",
                  "--output-len", "8", "--num-prompts", "5", "--output-json", out});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  report = json::parse(ReadFile(out));
  EXPECT_GT(report["total_tokens_per_second"].get<double>(),
            report["output_tokens_per_second"].get<double>());
  EXPECT_GT(report["bandwidth_share"].get<double>(), 0);
  // More than the whole comes with a reason.
  EXPECT_TRUE(report["bandwidth_share"].get<double>() <= 1 || report.contains("bandwidth_note"));
  // One token has no time between tokens.
  finished = Run({"bench", "latency", kGolden + "deepseek_v3", "--input-len", "16", "--output-len",
                  "1", "--batch-size", "2", "--num-iters", "1", "--output-json", out});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.out, "TPOT                              n/a")) << finished.out;
  EXPECT_FALSE(Contains(finished.out, "nan") || Contains(finished.out, "GB/s")) << finished.out;
  report = json::parse(ReadFile(out));
  EXPECT_TRUE(report["tpot_ms"].is_null() && report["itl_ms"].is_null()) << report;
  EXPECT_TRUE(report["bandwidth_share"].is_null()) << report;
  EXPECT_GT(report["ttft_ms"]["p50"].get<double>(), 0);
}

TEST_F(CliTest, AShortKvCacheIsSaid) {
  const Args base = {"run", kGolden + "deepseek_v3", "--prompt-ids", "5", "--max-tokens", "2"};
  const Finished finished = Run(base + Args{"--num-kv-blocks", "1"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "requests may have 16 tokens")) << finished.err;
  EXPECT_FALSE(Contains(Run(base).err, "requests may have"));
}

TEST_F(CliTest, MoreRequestsThanTheEngineQueuesByDefault) {
  const Finished finished = Run({"bench", "throughput", kGolden + "deepseek_v3", "--input-len", "1",
                                 "--output-len", "1", "--num-prompts", "5000"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
}

}  // namespace
}  // namespace moebius
