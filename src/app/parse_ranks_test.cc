// The flags that spread a model over ranks.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "app/parse_words_test.h"

namespace moebius::app {
namespace {

// Sizes and what ranks do, on every command that runs a model.
TEST(ParseRanks, FlagsReachTheRanks) {
  const RunOptions run =
      ParsedRun({"M", "-p", "x", "-tp", "2", "-dp", "4", "-pp", "3", "-ep", "--exchange-mode",
                 "throughput", "--deterministic", "--data-parallel-size-local", "4"});
  EXPECT_EQ(run.open.parallel.tensor_parallel_size, 2);
  EXPECT_EQ(run.open.parallel.data_parallel_size, 4);
  EXPECT_EQ(run.open.parallel.pipeline_parallel_size, 3);
  EXPECT_TRUE(run.open.parallel.enable_expert_parallel);
  EXPECT_EQ(run.open.parallel.num_nodes(), 1);  // however many ranks
  EXPECT_EQ(run.open.exchange_mode, moe::ExchangeMode::kThroughput);
  EXPECT_TRUE(run.open.deterministic);
  for (const Args& command : {Args{"chat", "M"}, Args{"serve", "M"}, Args{"bench", "latency", "M"},
                              Args{"bench", "throughput", "M"}}) {
    Args args = command;
    args.insert(args.end(), {"-dp", "2", "-ep"});
    const auto line = ParseCommandLine(args);
    ASSERT_TRUE(line) << line.error().message();
    EXPECT_TRUE(line->notes.empty()) << line->notes[0];
    args.insert(args.end(), {"--headless"});
    EXPECT_EQ(ParseError(args).find("--headless "), 0u) << ParseError(args);
  }
  EXPECT_FALSE(ParsedRun({"M", "-p", "x", "-dp", "2", "-ep", "--no-enable-expert-parallel"})
                   .open.parallel.enable_expert_parallel);
  EXPECT_EQ(ParseError({"run", "--url", "http://x", "-p", "y", "-tp", "2"})
                .find("--tensor-parallel-size goes with a model that is loaded here"),
            0u);
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "-tp", "4096", "-dp", "2"}).find("more than 4096"),
            std::string::npos);
}

TEST(ParseRanks, ABackendsNameChoosesExchangeAndMode) {
  using moe::ExchangeMode;
  constexpr auto kAllToAll = layout::ExchangeBackend::kAllToAll;
  constexpr auto kGather = layout::ExchangeBackend::kAllGatherReduceScatter;
  const struct {
    const char* name;
    layout::ExchangeBackend backend;
    moe::ExchangeMode mode;
    bool threads;
  } names[] = {{"all2all", kAllToAll, ExchangeMode::kAuto, false},
               {"shm", kAllToAll, ExchangeMode::kAuto, false},
               {"inproc", kAllToAll, ExchangeMode::kAuto, true},
               {"deepep_low_latency", kAllToAll, ExchangeMode::kLatency, false},
               {"deepep_high_throughput", kAllToAll, ExchangeMode::kThroughput, false},
               {"naive", kGather, ExchangeMode::kAuto, false},
               {"pplx", kGather, ExchangeMode::kAuto, false}};
  for (const auto& [name, backend, mode, threads] : names) {
    const auto line =
        ParseCommandLine({"run", "M", "-p", "x", "-dp", "2", "-ep", "--all2all-backend", name});
    ASSERT_TRUE(line) << line.error().message();
    const auto& open = std::get<RunOptions>(line->command).open;
    EXPECT_EQ(open.parallel.all2all_backend, backend) << name;
    EXPECT_EQ(open.parallel.exchange_kernel, layout::ExchangeKernel::kOwn) << name;
    EXPECT_EQ(open.exchange_mode, mode) << name;
    EXPECT_EQ(open.ranks_are_threads, threads) << name;
    EXPECT_EQ(line->notes.size(), std::string(name) == "all2all" ? 0u : 1u) << name;
  }
  // What was asked for by name wins.
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "-dp", "2", "-ep", "--all2all-backend", "deepep_low_latency",
                       "--exchange-mode", "throughput"})
                .open.exchange_mode,
            ExchangeMode::kThroughput);
}

// On GPUs there is one exchange, whatever its name; modes are as on CPUs.
TEST(ParseRanks, OnGpus) {
  const struct {
    const char* name;
    moe::ExchangeMode mode;
    const char* note;  // empty: none
  } names[] = {
      {"auto", moe::ExchangeMode::kAuto, ""},
      {"shm", moe::ExchangeMode::kAuto, "how tokens travel between GPUs"},
      {"inproc", moe::ExchangeMode::kAuto, "ranks are threads of one process"},
      {"allgather_reducescatter", moe::ExchangeMode::kAuto, "how tokens travel between GPUs"},
      {"deepep_high_throughput", moe::ExchangeMode::kThroughput, "--exchange-mode throughput"}};
  for (const auto& [name, mode, note] : names) {
    for (const Args& command : {Args{"run", "M", "-p", "x"}, Args{"chat", "M"}, Args{"serve", "M"},
                                Args{"bench", "latency", "M"}}) {
      Args args = command;
      args.insert(args.end(), {"--device", "cuda", "-dp", "2", "-ep", "--all2all-backend", name,
                               "--deterministic"});
      const auto line = ParseCommandLine(args);
      ASSERT_TRUE(line) << line.error().message();
      const auto* open = [&]() -> const frontend::OpenOptions* {
        if (const auto* run = std::get_if<RunOptions>(&line->command)) return &run->open;
        if (const auto* chat = std::get_if<ChatOptions>(&line->command)) return &chat->open;
        if (const auto* serve = std::get_if<ServeOptions>(&line->command)) return &serve->open;
        return &std::get<BenchOptions>(line->command).open;
      }();
      EXPECT_EQ(open->device, "cuda");
      EXPECT_EQ(open->ranks_are_threads, std::string_view(name) == "inproc") << name;
      EXPECT_EQ(open->parallel.all2all_backend, layout::ExchangeBackend::kAllToAll) << name;
      EXPECT_EQ(open->exchange_mode, mode) << name;
      ASSERT_EQ(line->notes.size(), *note == '\0' ? 0u : 1u) << name;
      if (*note != '\0') {
        EXPECT_NE(line->notes[0].find(note), std::string::npos) << line->notes[0];
      }
    }
  }
  // Threads only where no kernel is loaded late.
  EXPECT_NE(ParseError({"run", "M", "-p", "x", "--device", "cuda", "-tp", "2", "--all2all-backend",
                        "inproc"})
                .find("expected --deterministic"),
            std::string::npos);
}

TEST(ParseRanks, TensorRtLlmsSizes) {
  const auto sizes = [](const Args& more) {
    Args args = {"M", "-p", "x"};
    args.insert(args.end(), more.begin(), more.end());
    return layout::ConfigName(ParsedRun(args).open.parallel);
  };
  EXPECT_EQ(sizes({"-tp", "8", "--enable-attention-dp", "--moe-expert-parallel-size", "8"}),
            "DP8+EP");
  EXPECT_EQ(sizes({"-tp", "8", "--enable-attention-dp"}), "DP8");
  EXPECT_EQ(sizes({"-tp", "8", "--moe-expert-parallel-size", "8"}), "TP8+EP");
  EXPECT_EQ(sizes({"-tp", "8", "--moe-tensor-parallel-size", "8"}), "TP8");
  EXPECT_EQ(
      sizes({"-tp", "8", "--moe-expert-parallel-size", "8", "--moe-tensor-parallel-size", "1"}),
      "TP8+EP");
  EXPECT_EQ(
      sizes({"-dp", "4", "--enable-attention-dp", "--moe-config", R"({"backend": "WIDEEP"})"}),
      "DP4+EP");
  EXPECT_EQ(sizes({"-dp", "4", "--no-enable-expert-parallel", "--moe-config",
                   R"({"backend": "WIDEEP"})"}),
            "DP4");
  for (const Args& wrong :
       {Args{"-tp", "8", "--moe-expert-parallel-size", "4", "--moe-tensor-parallel-size", "2"},
        Args{"-tp", "8", "--moe-expert-parallel-size", "8", "--moe-tensor-parallel-size", "8"},
        Args{"-tp", "8", "--moe-tensor-parallel-size", "3"}}) {
    Args args = {"run", "M", "-p", "x"};
    args.insert(args.end(), wrong.begin(), wrong.end());
    EXPECT_NE(ParseError(args).find("no mixture"), std::string::npos) << ParseError(args);
  }
}

TEST(ParseRanks, TensorRtLlmsBlocks) {
  const RunOptions run = ParsedRun(
      {"M", "-p", "x", "-dp", "8", "-ep", "--moe-config",
       R"({"max_num_tokens": 9216, "load_balancer": {"num_slots": 288}})", "--kv-cache-config",
       R"({"enable_block_reuse": false, "free_gpu_memory_fraction": 0.6, "tokens_per_block": 64,
          "dtype": "bf16"})",
       "--max-batch-size", "7", "--max-num-tokens", "99", "--max-seq-len", "300",
       "--disable-overlap-scheduler"});
  EXPECT_EQ(run.open.max_moe_tokens, 9216);
  EXPECT_EQ(run.open.balance.num_slots, 288);
  EXPECT_TRUE(run.open.balance.is_on);
  EXPECT_FALSE(run.open.engine.enable_prefix_caching);
  EXPECT_EQ(run.open.engine.memory_fraction, 0.6);
  EXPECT_EQ(run.open.engine.block_size, 64);
  EXPECT_EQ(run.open.kv_cache_dtype, "bfloat16");
  EXPECT_EQ(run.open.engine.max_num_seqs, 7);
  EXPECT_EQ(run.open.engine.max_num_batched_tokens, 99);
  EXPECT_EQ(run.open.engine.max_model_len, 300);
  EXPECT_FALSE(run.open.engine.async_scheduling);
  // vLLM's name of the same stands over it.
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--max-num-seqs", "9", "--max-batch-size", "7"})
                .open.engine.max_num_seqs,
            9);
  EXPECT_EQ(ParsedRun({"M", "-p", "x", "--kv-cache-dtype", "fp8", "--kv-cache-config",
                       R"({"dtype": "auto"})"})
                .open.kv_cache_dtype,
            "fp8");
  for (const auto& [config, says] :
       {std::pair(R"({"backend": "MAGIC"})", "one of AUTO, WIDEEP"),
        std::pair(R"({"max_num_tokens": 0})", "a whole number from 1"),
        std::pair(R"({"max_num_tokens": "many"})", "a whole number from 1"),
        std::pair(R"({"load_balancer": 3})", "a file's name or a map"),
        std::pair(R"({"load_balancer": {"num_slot": 3}})", "did you mean num_slots?"),
        std::pair(R"({"backnd": "WIDEEP"})", "did you mean backend?"), std::pair("[]", "a map")}) {
    EXPECT_NE(ParseError({"run", "M", "-p", "x", "--moe-config", config}).find(says),
              std::string::npos)
        << config << ": " << ParseError({"run", "M", "-p", "x", "--moe-config", config});
  }
  for (const auto& [config, says] :
       {std::pair(R"({"enable_block_reuse": 3})", "true or false"),
        std::pair(R"({"dtype": "nvfp4"})",
                  "kv_cache_config.dtype is \"nvfp4\", expected auto, bfloat16 (bf16) or fp8")}) {
    const std::string error = ParseError({"run", "M", "-p", "x", "--kv-cache-config", config});
    EXPECT_NE(error.find(says), std::string::npos) << error;
  }
}

TEST(ParseRanks, AKeyOfTheConfigFileStandsThereOnce) {
  const std::string path = testing::TempDir() + "moebius_parse_ranks_test.yaml";
  const auto error_of = [&](const std::string& text) {
    std::ofstream(path) << text;
    return ParseError({"run", "M", "-p", "x", "--config", path});
  };
  EXPECT_EQ(error_of("moe_config:\n  load_balancer:\n    num_slots: 40\n    num_slots: 48\n"),
            path + ":4: load_balancer.num_slots stands there twice, expected once");
  EXPECT_EQ(error_of("moe_config: {load_balancer: {num_slots: 40, num_slots: 48}}\n"),
            path + ":1: load_balancer.num_slots stands there twice, expected once");
  EXPECT_EQ(error_of("max_tokens: 3\nmax-tokens: 4\n"),
            path + ":2: max-tokens stands there twice, expected once");
  EXPECT_EQ(ParseError({"run", "M", "-p", "x", "--moe-config",
                        R"({"load_balancer": {"num_slots": 40, "num_slots": 48}})"}),
            "moe_config: num_slots stands there twice, expected once");
}

TEST(ParseRanks, ErrorsOfABlockNameItsLine) {
  const std::string path = testing::TempDir() + "moebius_parse_ranks_test.yaml";
  std::ofstream(path) << "max-tokens: 3\nmoe_config:\n  load_balancer:\n    num_slots: 3\n"
                         "    initial_global_assignments:\n      1: [0, 1, 2]\n      2: [0, 1]\n";
  EXPECT_EQ(ParseError({"run", "M", "-p", "x", "--config", path}),
            path +
                ":7: moe_config.load_balancer: initial_global_assignments: layer 2 lists 2 "
                "slots, expected num_slots, which is 3");
  std::ofstream(path) << "moe_config:\n  backend: WIDEEP\n  max_num_tokens: 0\n";
  EXPECT_EQ(ParseError({"run", "M", "-p", "x", "--config", path})
                .find(path + ":3: moe_config.max_num_tokens is 0"),
            0u);
}

TEST(ParseRanks, RedundantExpertsAreOneNumber) {
  const Args run = {"run", "M", "-p", "x", "-dp", "8", "-ep"};
  const auto with = [&](const Args& more) {
    Args args = run;
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const Args key = {"--eplb-config", R"({"num_redundant_experts": 8})"};
  const Args both = {"--enable-eplb", key[0], key[1], "--num-redundant-experts"};
  Args differ = with(both);
  differ.emplace_back("16");
  EXPECT_EQ(ParseError(differ),
            "--num-redundant-experts is 16 and num_redundant_experts of --eplb-config is 8, "
            "expected one of them, or the same");
  Args same = with(both);
  same.emplace_back("8");
  const auto line = ParseCommandLine(same);
  ASSERT_TRUE(line) << line.error().message();
  EXPECT_EQ(std::get<RunOptions>(line->command).open.balance.num_redundant, 8);
  // What is ignored is called by the name that was given.
  EXPECT_EQ(ParseCommandLine(with(key))->notes,
            Args{"--eplb-config is ignored: it takes --enable-eplb"});
  EXPECT_EQ(ParseCommandLine(with({"--num-redundant-experts", "8"}))->notes,
            Args{"--num-redundant-experts is ignored: it takes --enable-eplb"});
}

}  // namespace
}  // namespace moebius::app
