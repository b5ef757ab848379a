#include "app/parse_words_test.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "base/suggest.h"

namespace moebius::app {
namespace {

TEST(Suggest, DistanceAndNearest) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("ab", "ba"), 1);
  EXPECT_EQ(Nearest("--max-token", {"--min-tokens", "--max-tokens"}), "--max-tokens");
  EXPECT_EQ(Nearest("--zebra", {"--min-tokens", "--max-tokens"}), "");
  EXPECT_EQ(Nearest("n", {"id", "stop"}), "");
  EXPECT_EQ(Nearest("--n", {"--id", "--p"}), "");
  EXPECT_EQ(Nearest("idd", {"id", "stop"}), "id");
}

TEST(Parse, RunFlagsReachTheirFields) {
  const RunOptions run = ParsedRun({"M",
                                    "-p",
                                    "hello",
                                    "--max-tokens",
                                    "5",
                                    "--temperature=0",
                                    "--top-k",
                                    "3",
                                    "--top-p",
                                    "0.9",
                                    "--min-p",
                                    "0.1",
                                    "--seed",
                                    "18446744073709551615",
                                    "--ignore-eos",
                                    "--min-tokens",
                                    "2",
                                    "--logprobs",
                                    "4",
                                    "--dtype",
                                    "float32",
                                    "--block-size",
                                    "8",
                                    "--max-num-seqs",
                                    "3",
                                    "--no-enable-prefix-caching",
                                    "--no-expert-statistics",
                                    "--threads",
                                    "2",
                                    "--no-chat",
                                    "--system",
                                    "be brief",
                                    "--repetition-penalty",
                                    "1.1"});
  EXPECT_EQ(run.open.model, "M");
  EXPECT_EQ(run.prompt, "hello");
  EXPECT_EQ(run.sampling.max_tokens, 5);
  EXPECT_EQ(run.sampling.temperature, 0.0f);
  EXPECT_EQ(run.sampling.top_k, 3);
  EXPECT_EQ(run.sampling.top_p, 0.9f);
  EXPECT_EQ(run.sampling.min_p, 0.1f);
  EXPECT_EQ(run.sampling.seed, UINT64_MAX);
  EXPECT_EQ(run.sampling.ignore_eos, true);
  EXPECT_EQ(run.sampling.min_tokens, 2);
  EXPECT_EQ(run.sampling.logprobs, 4);
  EXPECT_EQ(run.sampling.repetition_penalty, 1.1f);
  EXPECT_FALSE(run.sampling.presence_penalty);
  EXPECT_EQ(run.open.dtype, "float32");
  EXPECT_EQ(run.open.engine.block_size, 8);
  EXPECT_EQ(run.open.engine.max_num_seqs, 3);
  EXPECT_FALSE(run.open.engine.enable_prefix_caching);
  EXPECT_FALSE(run.open.engine.expert_statistics);
  EXPECT_EQ(run.open.threads, 2);
  EXPECT_EQ(run.chat, false);
  EXPECT_EQ(run.system, "be brief");
}

TEST(Parse, TheLastOfTwoCounts) {
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--seed", "1", "--seed", "2"}).sampling.seed, 2u);
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--no-chat", "--chat"}).chat, true);
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--chat", "--no-chat"}).chat, false);
  EXPECT_TRUE(ParsedRun({"M", "-p", "x", "--no-async-scheduling", "--async-scheduling"})
                  .open.engine.async_scheduling);
  EXPECT_FALSE(ParsedRun({"M", "-p", "x", "--async-scheduling", "--no-async-scheduling"})
                   .open.engine.async_scheduling);
}

TEST(Parse, ValuesAreTakenAsTheyStand) {
  const RunOptions run =
      ParsedRun({"M", "-p", "-5 + 3 = ?", "--stop", "[x]", "--stop", "a,b", "--stop", "--",
                 "--hf-overrides", R"({"num_hidden_layers": 2})", "--presence-penalty", "-0.5"});
  EXPECT_EQ(run.prompt, "-5 + 3 = ?");
  EXPECT_EQ(run.sampling.stop, (Args{"[x]", "a,b", "--"}));
  EXPECT_EQ(run.open.hf_overrides, R"({"num_hidden_layers": 2})");
  EXPECT_EQ(run.sampling.presence_penalty, -0.5f);
}

TEST(Parse, IdsAreListsOfNumbers) {
  EXPECT_EQ(ParsedRun({"M", "--prompt-ids", "5,6,7"}).prompt_ids, (std::vector<TokenId>{5, 6, 7}));
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--stop-token-ids", "1,2", "--stop-token-ids", "3"})
                .sampling.stop_token_ids,
            (std::vector<TokenId>{1, 2, 3}));
  for (const char* bad : {"", "5,", "5;6", "x", "-3", "99999999999"}) {
    const std::string error = ParseError({"run", "M", std::string("--prompt-ids=") + bad});
    EXPECT_NE(error.find("--prompt-ids"), std::string::npos) << error;
  }
}

TEST(Parse, UnknownNamesGetTheNearestOne) {
  EXPECT_NE(
      ParseError({"run", "M", "-p", "x", "--max-token", "5"}).find("did you mean --max-tokens?"),
      std::string::npos);
  EXPECT_NE(
      ParseError({"run", "--temprature=0", "M", "-p", "x"}).find("did you mean --temperature?"),
      std::string::npos);
  EXPECT_NE(ParseError({"runn"}).find("did you mean run?"), std::string::npos);
  EXPECT_NE(ParseError({"bench", "latnecy"}).find("did you mean latency?"), std::string::npos);
  const std::string far = ParseError({"run", "M", "-p", "x", "--zebra"});
  EXPECT_NE(far.find("--zebra"), std::string::npos);
  EXPECT_EQ(far.find("did you mean"), std::string::npos);
  EXPECT_NE(ParseError({"run", "M", "extra", "-p", "x"}).find("extra"), std::string::npos);
  EXPECT_NE(ParseError({"--max-tokens", "5"}).find("--max-tokens"), std::string::npos);
}

TEST(Parse, WhatIsMissingIsNamed) {
  EXPECT_NE(ParseError({"run", "-p", "x"}).find("MODEL"), std::string::npos);
  EXPECT_NE(ParseError({"inspect"}).find("MODEL"), std::string::npos);
  EXPECT_NE(ParseError({"run", "M"}).find("--prompt"), std::string::npos);
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--prompt-ids", "5"}).find("more than one"),
            std::string::npos);
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--output-file", "f"}).find("--input-file"),
            std::string::npos);
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--max-tokens", "many"}).find("--max-tokens"),
            std::string::npos);
  EXPECT_NE(ParseError({"run", "M", "-p"}).find("--prompt"), std::string::npos);
}

TEST(Parse, FlagsOfVllmRecipesAreAcceptedWithANote) {
  const auto line = ParseCommandLine({"run", "M", "-p", "x", "--trust-remote-code", "--swap-space",
                                      "4", "-tp", "1", "--enforce_eager", "--max_tokens", "3"});
  ASSERT_TRUE(line) << line.error().message();
  ASSERT_EQ(line->notes.size(), 2u);
  EXPECT_FALSE(std::get<RunOptions>(line->command).open.engine.device_graphs);
  EXPECT_EQ(std::get<RunOptions>(line->command).sampling.max_tokens, 3);
}

// On every command that takes a model, each with one line.
TEST(Parse, EveryCommandTakesARecipesFlags) {
  const std::vector<Args> flags = {{"--calculate-kv-scales"},
                                   {"--quantization", "fp8"},
                                   {"-q", "auto"},
                                   {"--tokenizer", "T"},
                                   {"--served-model-name", "m"},
                                   {"--enable-dbo"},
                                   {"--moe-backend", "deep_gemm"},
                                   {"--max-logprobs", "10"},
                                   {"--no-enable-chunked-prefill"},
                                   {"--host", "::"},
                                   {"--api-key", "k"},
                                   {"-O3"},
                                   {"-O", "2"},
                                   {"--num-redundant-experts", "32"},
                                   {"--speculative-config", "{}"},
                                   {"--tool-call-parser", "hermes"},
                                   {"--enable-auto-tool-choice"},
                                   {"-dpa", "10.0.0.1"},
                                   {"--data-parallel-hybrid-lb"},
                                   {"--limit-mm-per-prompt.image", "0"},
                                   {"--no-trust-remote-code"}};
  for (const Args& command : {Args{"run", "M", "-p", "x"}, Args{"chat", "M"}, Args{"inspect", "M"},
                              Args{"bench", "latency", "M"}, Args{"bench", "throughput", "M"}}) {
    for (const Args& flag : flags) {
      Args args = command;
      args.insert(args.end(), flag.begin(), flag.end());
      const auto line = ParseCommandLine(args);
      ASSERT_TRUE(line) << line.error().message();
      ASSERT_EQ(line->notes.size(), 1u) << command[0] << " " << flag[0];
      EXPECT_NE(line->notes[0].find(" is ignored: "), std::string::npos);
    }
    Args args = command;
    for (const char* more :
         {"--data-parallel-size-local", "1", "--no-enable-prefix-caching",
          "--gpu-memory-utilization", "0.8", "--max-model-len", "4k", "--chat-template", "F"}) {
      args.emplace_back(more);
    }
    const auto line = ParseCommandLine(args);
    ASSERT_TRUE(line) << line.error().message();
    EXPECT_EQ(line->notes.size(), command[0] == "inspect" ? 5u : 0u);
  }
  for (const Args& wrong : {Args{"--kv-cache-dtype", "int3"}, Args{"--quantization", "awq"},
                            Args{"--prefill-context-parallel-size", "2"}}) {
    const std::string error = ParseError({"inspect", "M", wrong[0], wrong[1]});
    EXPECT_NE(error.find(wrong[0]), std::string::npos) << error;
    EXPECT_NE(error.find("expected"), std::string::npos) << error;
  }
}

TEST(Parse, AFlagWithoutItsValueIsNamed) {
  EXPECT_EQ(ParseError({"serve", "M", "--swap-space"}), "--swap-space needs a value");
  EXPECT_EQ(ParseError({"serve", "M", "--swap-space", "--port", "1"}),
            "--swap-space needs a value, --port is a flag");
  EXPECT_EQ(ParseError({"serve", "M", "--port"}), "--port needs a value");
  EXPECT_EQ(ParseError({"serve", "--api-key"}), "--api-key needs a value");
  EXPECT_EQ(ParseError({"run", "M", "-p"}), "-p (--prompt) needs a value");
  EXPECT_EQ(ParsedRun({"M", "--prompt=--stop"}).prompt, "--stop");
  EXPECT_EQ(ParseError({"bench", "latency", "M", "--batch-size"}), "--batch-size needs a value");
}

TEST(Parse, NoLongestLengthIsTheModels) {
  for (const char* value : {"auto", "-1"}) {
    EXPECT_EQ(ParsedRun({"M", "-p", "x", "--max-model-len", "4k", "--max-model-len", value})
                  .open.engine.max_model_len,
              0);
  }
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--max-model-len", "-2"}).find("'-2'"),
            std::string::npos);
}

TEST(Parse, WhatNoModelCouldHonourIsRefused) {
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--temperature", "-1"}).find("temperature is -1"),
            std::string::npos);
  EXPECT_NE(ParseError({"chat", "M", "--top-p", "0"}).find("top_p is 0"), std::string::npos);
  for (const Args& command : {Args{"run", "M", "-p", "x"}, Args{"chat", "M"}, Args{"serve", "M"},
                              Args{"bench", "latency", "M"}}) {
    for (const Args& wrong :
         {Args{"--block-size", "0"}, Args{"--max-num-seqs", "-1"}, Args{"--hf-overrides", "[1]"}}) {
      Args args = command;
      args.insert(args.end(), wrong.begin(), wrong.end());
      EXPECT_EQ(ParseError(args).find(wrong[0] + " is "), 0u) << ParseError(args);
    }
  }
  EXPECT_NE(ParseError({"serve", "M", "--override-generation-config", R"({"top_p": 7})"})
                .find("top_p is 7"),
            std::string::npos);
  EXPECT_NE(ParseError({"serve", "M\xff"}).find("--served-model-name"), std::string::npos);
  EXPECT_TRUE(ParseCommandLine({"serve", "M\xff", "--served-model-name", "m"}));
}

TEST(Parse, InspectTakesASwitchThatOthersHide) {
  const auto line = ParseCommandLine({"inspect", "M", "--enable-prefix-caching"});
  ASSERT_TRUE(line) << line.error().message();
  EXPECT_EQ(line->notes, Args({"--enable-prefix-caching is ignored: inspect runs no engine"}));
  EXPECT_FALSE(ParseCommandLine({"inspect", "M", "N"}));
}

TEST(Parse, EngineFlagsTakeUnits) {
  const auto engine =
      ParsedRun({"M", "-p", "x", "--kv-cache-memory-bytes", "4G", "--max-model-len", "32k",
                 "--max-num-batched-tokens", "8K", "--gpu-memory-utilization", "0.5",
                 "--chat-template", "chat.jinja"})
          .open;
  EXPECT_EQ(engine.engine.kv_cache_bytes, uint64_t{4} << 30);
  EXPECT_EQ(engine.engine.max_model_len, 32000);
  EXPECT_EQ(engine.engine.max_num_batched_tokens, 8192);
  EXPECT_EQ(engine.engine.memory_fraction, 0.5);
  EXPECT_EQ(engine.chat_template, "chat.jinja");
}

TEST(Parse, NumbersOutOfRangeSayWhatIsExpected) {
  const std::vector<Args> cases = {
      {"--kv-cache-memory-bytes", "-5", "4G"},
      {"--kv-cache-memory-bytes", "4X", "4G"},
      {"--seed", "-1", "from 0 to 18446744073709551615"},
      {"--seed", "18446744073709551616", "from 0 to 18446744073709551615"},
      {"--logprobs", "-1", "from 0 to 20"},
      {"--logprobs", "21", "from 0 to 20"},
      {"--max-tokens", "99999999999", "from 1 to 2147483647"},
      {"--max-tokens", "-3", "from 1 to 2147483647"},
      {"--min-tokens", "-1", "from 0 to"},
      {"--top-k", "1.5", "from -1 to"},
      {"--threads", "-1", "from 0 to"},
      {"--temperature", "hot", "a number"},
      {"--block-size", "x", "a whole number"}};
  for (const Args& c : cases) {
    const std::string error = ParseError({"run", "M", "-p", "x", c[0], c[1]});
    EXPECT_EQ(error.rfind(c[0] + " is '" + c[1] + "', expected ", 0), 0u) << error;
    EXPECT_NE(error.find(c[2]), std::string::npos) << error;
  }
}

TEST(Parse, ConfigFileHasTheSameKeysAndTheCommandLineWins) {
  const std::string path = testing::TempDir() + "moebius_parse_test.yaml";
  std::ofstream(path)
      << "max-tokens: 5\ntemperature: 0.5\nignore_eos: true\nenable-prefix-caching: false\n"
         "stop: [\"a, b\", \"c\"]\nhf-overrides: {num_hidden_layers: 2, name: \"3\"}\nseed: null\n";
  const RunOptions run = ParsedRun({"M", "-p", "x", "--config", path, "--temperature", "0"});
  EXPECT_EQ(run.sampling.max_tokens, 5);
  EXPECT_EQ(run.sampling.temperature, 0.0f);
  EXPECT_EQ(run.sampling.ignore_eos, true);
  EXPECT_FALSE(run.open.engine.enable_prefix_caching);
  EXPECT_EQ(run.sampling.stop, (Args{"a, b", "c"}));
  EXPECT_EQ(run.open.hf_overrides, R"({"name":"3","num_hidden_layers":2})");
  EXPECT_FALSE(run.sampling.seed);

  // False is what a switch is without it; none of these words takes the next argument.
  std::ofstream(path) << "trust_remote_code: false\nenforce_eager: False\n"
                         "enable_expert_parallel: false\nignore_eos: false\nchat: false\n"
                         "skip_special_tokens: false\nasync_scheduling: off\nprompt: yes\n"
                         "enable_chunked_prefill: true\nno_enable_prefix_caching: true\n"
                         "moe_config: {backend: CUTLASS, max_num_tokens: 8192}\n";
  const auto line = ParseCommandLine({"run", "--config", path, "M"});
  ASSERT_TRUE(line) << line.error().message();
  const auto& quiet = std::get<RunOptions>(line->command);
  EXPECT_EQ(quiet.open.model, "M");
  EXPECT_EQ(quiet.prompt, "yes");
  EXPECT_EQ(quiet.sampling.ignore_eos, false);
  EXPECT_EQ(quiet.sampling.skip_special_tokens, false);
  EXPECT_EQ(quiet.chat, false);
  EXPECT_FALSE(quiet.open.engine.async_scheduling);
  EXPECT_FALSE(quiet.open.engine.enable_prefix_caching);
  ASSERT_EQ(line->notes.size(), 2u);
  EXPECT_NE(line->notes[0].find("--enable-chunked-prefill is ignored"), std::string::npos);
  EXPECT_NE(line->notes[1].find("moe_config.backend CUTLASS: "), std::string::npos);
  EXPECT_EQ(quiet.open.max_moe_tokens, 8192);

  std::ofstream(path) << "logprobs: true\n";
  EXPECT_EQ(ParseError({"run", "--config", path, "M", "-p", "x"}),
            path + ":1: --logprobs is 'true', expected a whole number from 0 to 20");
  std::ofstream(path) << "ignore-eos: maybe\n";
  EXPECT_EQ(ParseError({"run", "--config", path, "M", "-p", "x"}),
            path + ":1: --ignore-eos is 'maybe', expected true or false");

  std::ofstream(path) << "seed: 1\nmax-token: 5\n";
  EXPECT_EQ(ParseError({"run", "M", "-p", "x", "--config", path}),
            path + ":2: unknown key max-token (did you mean --max-tokens?)");

  // One file may serve several commands.
  std::ofstream(path) << "input-len: 7\nport: 80\neplb_config.window_size: 5\nmax-tokens: 3\n";
  const auto bench = ParseCommandLine({"bench", "latency", "M", "--config", path});
  ASSERT_TRUE(bench) << bench.error().message();
  EXPECT_EQ(std::get<BenchOptions>(bench->command).input_len, 7);
  EXPECT_EQ(bench->notes.size(), 2u);  // of the port, and of --eplb-config without --enable-eplb
  EXPECT_EQ(bench->debug_notes, Args{path + ": of other commands: max-tokens"});
  EXPECT_TRUE(ParseCommandLine({"doctor", "--config", path}));
  std::ofstream(path) << "a: [1\n";
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--config", path}).find(path), std::string::npos);
  std::remove(path.c_str());
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--config", path}).find(path), std::string::npos);
}

TEST(Parse, TheCommandLinesModelWinsOverAFiles) {
  const std::string path = testing::TempDir() + "moebius_parse_model.yaml";
  std::ofstream(path) << "model: F\n";
  EXPECT_EQ(ParsedRun({"-p", "x", "--config", path}).open.model, "F");
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--config", path}).open.model, "M");
  EXPECT_EQ(ParsedRun({"--config", path, "-p", "x", "M"}).open.model, "M");
  EXPECT_EQ(ParsedRun({"--model", "M", "-p", "x", "--config", path}).open.model, "M");
  EXPECT_EQ(ParsedRun({"--model=M", "M", "-p", "x", "--config", path}).open.model, "M");
  for (const char* command : {"serve", "chat", "inspect", "plan"}) {
    EXPECT_EQ(ParseError({command, "M", "--model", "N", "--config", path}),
              "MODEL is 'M' and --model is 'N': expected one model");
    EXPECT_TRUE(ParseCommandLine({command, "M", "--config", path}));
  }
  const auto plan = ParseCommandLine({"plan", "M", "--gpus", "8", "--config", path});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(std::get<PlanOptions>(plan->command).model, "M");
  const auto serve = ParseCommandLine({"serve", "--config", path, "--api-key", "a", "b"});
  std::remove(path.c_str());
  ASSERT_TRUE(serve) << serve.error().message();
  EXPECT_EQ(std::get<ServeOptions>(serve->command).open.model, "F");
}

TEST(Parse, BenchCommands) {
  const auto latency =
      ParseCommandLine({"bench", "latency", "M", "--input-len", "7", "--batch-size", "2"});
  ASSERT_TRUE(latency) << latency.error().message();
  EXPECT_EQ(std::get<BenchOptions>(latency->command).input_len, 7);
  EXPECT_FALSE(std::get<BenchOptions>(latency->command).throughput);
  const auto throughput =
      ParseCommandLine({"bench", "throughput", "--model", "M", "--num-prompts", "9"});
  ASSERT_TRUE(throughput) << throughput.error().message();
  EXPECT_EQ(std::get<BenchOptions>(throughput->command).num_prompts, 9);
  EXPECT_TRUE(std::get<BenchOptions>(throughput->command).throughput);
  EXPECT_NE(ParseError({"bench", "latency", "M", "--num-prompts", "9"}).find("--num-prompts"),
            std::string::npos);
  for (const Args& wrong :
       {Args{"--num-iters-warmup", "-5"}, Args{"--num-iters", "0"}, Args{"--input-len", "0"},
        Args{"--output-len", "99999999999"}, Args{"--batch-size", "2147483647"}}) {
    const std::string error = ParseError({"bench", "latency", "M", wrong[0], wrong[1]});
    EXPECT_EQ(error.rfind(wrong[0] + " is '" + wrong[1] + "', expected", 0), 0u) << error;
  }
}

TEST(Parse, PlanFlags) {
  const auto line = ParseCommandLine({"plan", "M", "-tp", "4", "-dp", "2", "-ep", "--enable-eplb",
                                      "--num-redundant-experts", "32", "--tpot-ms", "50", "--isl",
                                      "8000", "--no-enable-dbo", "--gpus", "8-64"});
  ASSERT_TRUE(line) << line.error().message();
  const PlanOptions& plan = std::get<PlanOptions>(line->command);
  EXPECT_EQ(plan.model, "M");
  EXPECT_EQ(plan.tensor_parallel_size, 4);
  EXPECT_EQ(plan.data_parallel_size, 2);
  EXPECT_FALSE(plan.pipeline_parallel_size);
  EXPECT_EQ(plan.enable_expert_parallel, true);
  EXPECT_TRUE(plan.enable_eplb);
  EXPECT_EQ(plan.num_redundant_experts, 32);
  EXPECT_EQ(plan.tpot_ms, 50);
  EXPECT_EQ(plan.isl, 8000);
  EXPECT_EQ(plan.gpus, "8-64");
  EXPECT_NE(ParseError({"plan", "M", "--nodes", "0"}).find("--nodes is 0"), std::string::npos);
  EXPECT_NE(ParseError({"plan", "M", "--zipf", "-1"}).find("--zipf"), std::string::npos);
  EXPECT_TRUE(ParseCommandLine({"plan", "--list-models"}));
}

TEST(Parse, DottedFlagsAreJson) {
  const RunOptions run = ParsedRun(
      {"M", "--hf-overrides.num_hidden_layers", "2", "-p", "x", "--hf_overrides.rope.type=yarn"});
  EXPECT_EQ(run.open.hf_overrides, R"({"num_hidden_layers":2,"rope":{"type":"yarn"}})");
  EXPECT_EQ(run.prompt, "x");
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--zebra.a", "1"}).find("unknown flag --zebra"),
            std::string::npos);
}

TEST(Parse, ChoicesArePlainInErrors) {
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--load-format", "safetensors"}).open.load_format, "auto");
  EXPECT_EQ(ParseError({"run", "M", "-p", "x", "--dtype", "int3"}),
            "--dtype is 'int3', expected one of auto, float32, bfloat16");
  for (const char* half : {"half", "float16"}) {
    EXPECT_EQ(ParseError({"inspect", "M", "--dtype", half}),
              "--dtype: " + std::string(half) + " is not computed here, use bfloat16 or float32");
  }
  EXPECT_EQ(ParseError({"doctor", "--log-level", "loud"}),
            "--log-level is 'loud', expected one of debug, info, warning, error");
  EXPECT_EQ(ParseError({"run", "M", "-p", ""}), "--prompt is empty, expected text");
  EXPECT_NE(ParseError({"run", "M"}).find("-p - reads standard input"), std::string::npos);
}

TEST(Parse, HelpAndVersion) {
  for (const Args& args :
       {Args{}, Args{"--help"}, Args{"run", "--help"}, Args{"bench"}, Args{"--version"}}) {
    const auto line = ParseCommandLine(args);
    ASSERT_TRUE(line) << line.error().message();
    EXPECT_FALSE(std::get<Help>(line->command).text.empty());
  }
  const auto help = [](const Args& args) {
    return std::get<Help>(ParseCommandLine(args)->command).text;
  };
  EXPECT_NE(help({"bench"}).find("Usage: moebius bench"), std::string::npos);
  EXPECT_NE(help({"bench", "latency", "--help"}).find("--input-len INT=32"), std::string::npos);
  EXPECT_NE(help({"run", "--help"}).find("\"messages\""), std::string::npos);
  for (const Args& args : {Args{"run", "--help"}, Args{"doctor", "--help"}, Args{"bench"}})
    EXPECT_NE(help(args).find("--config FILE"), std::string::npos);
  EXPECT_NE(std::get<Help>(ParseCommandLine({"run", "--help"})->command).text.find("--max-tokens"),
            std::string::npos);
}

ServeOptions ParsedServe(Args args, const Args& environment = {}) {
  args.insert(args.begin(), "serve");
  const auto line = ParseCommandLine(args, environment);
  EXPECT_TRUE(line) << line.error().message();
  return line ? std::get<ServeOptions>(line->command) : ServeOptions{};
}

TEST(ParseServe, FlagsReachTheirFields) {
  const ServeOptions serve = ParsedServe({"--api-key",
                                          "a",
                                          "b",
                                          "--port",
                                          "0",
                                          "--host=::1",
                                          "--served-model-name",
                                          "x",
                                          "--page",
                                          "--no-page",
                                          "--max-logprobs",
                                          "-1",
                                          "--request-timeout",
                                          "1.5",
                                          "--drain-timeout",
                                          "0",
                                          "--step-timeout",
                                          "1.5",
                                          "--allowed-origins",
                                          R"(["http://a", "http://b"])",
                                          "--enable-log-requests",
                                          "--override-generation-config",
                                          R"({"temperature": 0.5, "max_new_tokens": 7})",
                                          "--seed",
                                          "3",
                                          "--text-threads",
                                          "4",
                                          "M"});
  EXPECT_EQ(serve.open.model, "M");
  EXPECT_EQ(serve.api_keys, (Args{"a", "b"}));
  EXPECT_EQ(serve.port, 0);
  EXPECT_EQ(serve.host, "::1");
  EXPECT_EQ(serve.served_model_names, Args{"x"});
  EXPECT_FALSE(serve.page);
  EXPECT_EQ(serve.max_logprobs, -1);
  EXPECT_EQ(serve.request_timeout, 1.5);
  EXPECT_EQ(serve.drain_timeout, 0.0);
  EXPECT_EQ(serve.open.engine.step_timeout, std::chrono::milliseconds(1500));
  EXPECT_EQ(serve.allowed_origins, (Args{"http://a", "http://b"}));
  EXPECT_TRUE(serve.log_requests);
  EXPECT_EQ(serve.sampling.temperature, 0.5f);
  EXPECT_EQ(serve.sampling.max_tokens, 7);
  EXPECT_EQ(serve.open.engine.seed, 3u);
  EXPECT_EQ(serve.text_threads, 4);
}

TEST(ParseServe, LaterFlagsOfVllmAreTakenWithALineEach) {
  const Args flags = {"--enable-mfu-metrics",
                      "--stream-interval",
                      "4",
                      "--attention-config.backend",
                      "FLASH_ATTN",
                      "--enable-log-outputs",
                      "-O.level=3",
                      "--numa-bind",
                      "--kv-offloading-size",
                      "8",
                      "--cpu-distributed-timeout-seconds",
                      "60",
                      "--fully-sharded-loras"};
  for (const char* command : {"serve", "chat"}) {
    Args args = {command, "M"};
    args.insert(args.end(), flags.begin(), flags.end());
    const auto line = ParseCommandLine(args);
    ASSERT_TRUE(line) << line.error().message();
    EXPECT_EQ(line->notes.size(), 9u);
    for (const std::string& note : line->notes) {
      EXPECT_NE(note.find(" is ignored: "), std::string::npos) << note;
    }
  }
  EXPECT_TRUE(ParseCommandLine({"serve", "M", "-O3"}));
  const Args more = {"--cudagraph-capture-sizes",
                     "1",
                     "2",
                     "4",
                     "--cuda-graph-sizes",
                     "8",
                     "16",
                     "--disable-hybrid-kv-cache-manager",
                     "--ubatch-size",
                     "4",
                     "--hf-config-path",
                     "x",
                     "--config-format",
                     "hf",
                     "--trust-request-chat-template",
                     "--tokens-only",
                     "-cc.level=3",
                     R"(-sc={"a": 1})",
                     "-ac.backend=X",
                     "-tp=1",
                     "-dp=1",
                     "--numa-bind-nodes",
                     "0",
                     "1"};
  for (const char* command : {"serve", "chat"}) {
    Args args = {command};
    args.insert(args.end(), more.begin(), more.end());
    args.emplace_back("M");  // which no list takes
    const auto line = ParseCommandLine(args);
    ASSERT_TRUE(line) << line.error().message();
    EXPECT_EQ(line->notes.size(), 12u);
  }
  EXPECT_TRUE(ParseCommandLine({"serve", "M", "--no-enable-elastic-ep"}));
  const auto chat = ParseCommandLine({"chat", "M", "-tp=2"});
  ASSERT_TRUE(chat) << chat.error().message();
  EXPECT_EQ(std::get<ChatOptions>(chat->command).open.parallel.tensor_parallel_size, 2);
  EXPECT_NE(ParseError({"serve", "M", "--default-chat-template-kwargs", R"({"a": 1})"})
                .find("chat_template_kwargs"),
            std::string::npos);
  for (const Args& words : {Args{"--rope-scaling", R"({"factor": 2})"},
                            Args{R"(--rope-scaling={"factor": 2})"}, Args{"--rope-theta=1e6"}}) {
    Args args = {"serve", "M"};
    args.insert(args.end(), words.begin(), words.end());
    EXPECT_NE(ParseError(args).find("--hf-overrides"), std::string::npos) << words[0];
  }
}

TEST(ParseServe, ListsOfTheCommandLineReplaceThoseOfAFile) {
  const std::string path = testing::TempDir() + "moebius_parse_lists.yaml";
  std::ofstream(path) << "api-key: [a, b]\nserved_model_name: one\nallowed-origins: [x]\n";
  const auto line = ParseCommandLine(
      {"serve", "M", "--config", path, "--api-key", "c", "--served-model-name=two"});
  std::remove(path.c_str());
  ASSERT_TRUE(line) << line.error().message();
  const auto& serve = std::get<ServeOptions>(line->command);
  EXPECT_EQ(serve.api_keys, Args({"c"}));
  EXPECT_EQ(serve.served_model_names, Args({"two"}));
  EXPECT_EQ(serve.allowed_origins, Args({"x"}));
}

TEST(ParseServe, AFlagOfSeveralValuesLeavesTheLastWordToTheModel) {
  EXPECT_EQ(ParsedServe({"--api-key", "a", "M"}).open.model, "M");
  EXPECT_EQ(ParsedServe({"M", "--api-key", "a", "b"}).api_keys, (Args{"a", "b"}));
  EXPECT_EQ(ParsedServe({"--model", "M", "--api-key", "a", "b"}).api_keys, (Args{"a", "b"}));
  EXPECT_EQ(ParseError({"serve"}), "MODEL is missing: the folder of a model");
  EXPECT_EQ(ParseError({"serve", "--api-key", "a"}), "MODEL is missing: the folder of a model");
}

TEST(ParseServe, TheEnvironmentSpeaksFirst) {
  const Args environment = {"VLLM_ALL2ALL_BACKEND=deepep_low_latency", "VLLM_API_KEY=k", "PATH=/",
                            "VLLM_USE_V1="};
  const ServeOptions serve = ParsedServe({"M", "--dry-run"}, environment);
  EXPECT_EQ(serve.parallel.all2all_backend, "deepep_low_latency");
  EXPECT_EQ(serve.api_keys, Args{"k"});
  const ServeOptions flags = ParsedServe(
      {"M", "--dry-run", "--all2all-backend", "all2all", "--api-key", "f"}, environment);
  EXPECT_EQ(flags.parallel.all2all_backend, "all2all");
  EXPECT_EQ(flags.api_keys, Args{"f"});
  const auto run = ParseCommandLine({"run", "--url", "http://x", "-p", "y"}, environment);
  ASSERT_TRUE(run);
  EXPECT_EQ(std::get<RunOptions>(run->command).remote.api_key, "k");
  EXPECT_TRUE(run->notes.empty());
  const auto local = ParseCommandLine({"run", "M", "-p", "y", "-dp", "2", "-ep"}, environment);
  ASSERT_TRUE(local);
  EXPECT_EQ(std::get<RunOptions>(local->command).parallel.all2all_backend, "deepep_low_latency");
}

TEST(ParseServe, NotesSpeakToAServersUser) {
  const auto line =
      ParseCommandLine({"serve", "M", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
                        "--reasoning-parser", "qwen3", "-ep"},
                       {"VLLM_USE_DEEP_GEMM=1"});
  ASSERT_TRUE(line) << line.error().message();
  ASSERT_EQ(line->notes.size(), 5u);
  EXPECT_EQ(line->notes[0].rfind("VLLM_USE_DEEP_GEMM is ignored: ", 0), 0u);
  for (const std::string& note : line->notes) {
    EXPECT_EQ(note.find("belongs to a server"), std::string::npos) << note;
  }
}

TEST(Parse, AUrlStandsForAModel) {
  EXPECT_EQ(ParsedRun({"--url", "http://x", "-p", "y"}).remote.url, "http://x");
  EXPECT_EQ(ParsedRun({"demo", "--url", "http://x", "-p", "y", "--temperature", "0"}).open.model,
            "demo");
  for (const Args& local :
       {Args{"--threads", "1"}, Args{"--load-format", "dummy"}, Args{"--chat-template", "f"},
        Args{"--generation-config", "vllm"}, Args{"--no-async-scheduling"}}) {
    for (const Args& command : {Args{"run", "-p", "y"}, Args{"chat"}}) {
      Args args = command;
      args.insert(args.end(), {"--url", "http://x"});
      args.insert(args.end(), local.begin(), local.end());
      EXPECT_EQ(ParseError(args).find(local[0] + " goes with a model that is loaded here"), 0u)
          << ParseError(args);
    }
  }
  EXPECT_NE(ParseError({"run", "--url", "http://x", "--input-file", "f"}).find("--url"),
            std::string::npos);
}

}  // namespace
}  // namespace moebius::app
