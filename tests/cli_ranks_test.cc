// Many ranks as a user has them: the program's flags, one rank's answers, and an end in order
// whatever happens to any process.
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

const std::string kGolden = std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/";
const std::string kV3 = kGolden + "deepseek_v3";  // 4 heads, 3 layers, 16 experts, top 4
const Args kSmall = {"--dtype", "float32", "--max-num-seqs", "4", "--max-model-len", "128"};

class RanksTest : public ServeTest {
 protected:
  // Until there are so many ranks of a process.
  static std::vector<pid_t> RanksOf(pid_t parent, size_t count) {
    std::vector<pid_t> ranks;
    for (int i = 0; i < 6000 && ranks.size() < count; ++i) {
      ranks = ChildrenOf(parent);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(ranks.size(), count);
    return ranks;
  }

  static void ExpectGone(const std::vector<pid_t>& ranks) {
    for (const pid_t rank : ranks) {
      for (int i = 0; i < 1000 && IsAlive(rank); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      EXPECT_FALSE(IsAlive(rank));
      if (IsAlive(rank)) kill(rank, SIGKILL);
    }
  }

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

  static std::string LongRequest(int max_tokens) {
    return json{{"prompt", {5, 6, 7}}, {"max_tokens", max_tokens}, {"ignore_eos", true}}.dump();
  }
};

TEST_F(RanksTest, EveryLayoutGivesTheAnswersOfOneRank) {
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
  const std::string metrics = Fetch("GET", "/metrics").body;
  const std::string labels = "{model_name=\"" + kV3 + "\",engine=\"0\"";
  EXPECT_TRUE(Contains(metrics, "moebius:eplb_plans_total" + labels + ",result=\"dropped\"} 0\n"))
      << metrics;
  EXPECT_FALSE(Contains(metrics, "moebius:eplb_moved_slots_total" + labels + "} 0\n"));
  EXPECT_EQ(End(SIGTERM), 0);
  const std::string load = ReadFile(folder_ + "server_out");
  EXPECT_TRUE(Contains(load, "placement changed ")) << load;
  EXPECT_FALSE(Contains(load, "placement changed 0 times")) << load;
  int64_t last_epoch = 0;
  std::istringstream lines(ReadFile(log));
  for (std::string line; std::getline(lines, line);) {
    const int64_t epoch = json::parse(line)["epoch"];
    EXPECT_GE(epoch, last_epoch) << line;
    last_epoch = epoch;
  }
  EXPECT_GE(last_epoch, balance["epoch"]);
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

TEST_F(RanksTest, WhatCannotBeIsSaidBeforeAnythingStarts) {
  const struct {
    Args args;
    int exit_code;
    const char* says;
  } cases[] = {
      {{"-tp", "3"}, 2, "--tensor-parallel-size 3 is not possible with this model: "},
      {{"-tp", "3"}, 2, "; the nearest layout that is: --pipeline-parallel-size 3"},
      {{"-pp", "4"}, 2, "pipeline_parallel_size is 4, expected at most the 3 layers"},
      {{"-pp", "2", "--device", "cuda"}, 2, "--pipeline-parallel-size is 2, expected 1 with --dev"},
      {{"-dp", "128", "-ep"}, 2, "128"},
      {{"-dp", "2", "--nnodes", "2"}, 2, "--nnodes is 2, expected 1: all ranks are of one machine"},
      {{"-dp", "4", "-dpl", "2"}, 2, "--data-parallel-size-local is 2, expected 4"},
      {{"-dp", "2", "-dcp", "2"}, 2, "--decode-context-parallel-size is 2, expected 1"},
      {{"-tp", "2", "--threads", "9999"}, 2, "--threads is 9999, expected 1 to "},
      {{"--step-timeout", "0"}, 2, "--step-timeout is 0, expected seconds from 0.001"},
      {{"--exchange-mode", "fast"}, 2, "expected one of auto, latency, throughput"},
      {{"-tp", "4", "-dp", "2", "--enable-attention-dp"}, 2, "--enable-attention-dp makes"},
      {{"-tp", "4", "--moe-expert-parallel-size", "2"}, 2, "expected 4 or 1"},
  };
  for (const auto& c : cases) {
    const Finished finished = Run(Args{"run", kV3, "--prompt-ids", "5"} + c.args);
    EXPECT_EQ(finished.exit_code, c.exit_code) << c.args[0] << c.args[1] << finished.err;
    EXPECT_TRUE(Contains(finished.err, c.says)) << c.says << "\n" << finished.err;
  }
  // What only a rank can know.
  const Finished memory =
      Run({"run", kV3, "--prompt-ids", "5", "-dp", "2", "-ep", "--kv-cache-memory-bytes", "1"});
  EXPECT_EQ(memory.exit_code, 1) << memory.err;
  EXPECT_TRUE(Contains(memory.err, "error: rank ") && Contains(memory.err, "KV")) << memory.err;
}

TEST_F(RanksTest, TensorRtLlmsFileIsTaken) {
  const std::string wide = Write("wide.yaml",
                                 "tensor_parallel_size: 2\n"
                                 "moe_expert_parallel_size: 2\n"
                                 "enable_attention_dp: true\n"
                                 "max_batch_size: 4\n"
                                 "max_num_tokens: 64\n"
                                 "kv_cache_config:\n"
                                 "  enable_block_reuse: false\n"
                                 "  dtype: fp8\n"
                                 "cuda_graph_config: {enable_padding: true}\n"
                                 "moe_config:\n"
                                 "  backend: WIDEEP\n"
                                 "  max_num_tokens: 9216\n"
                                 "  load_balancer: {num_slots: 18, layer_updates_per_iter: 1}\n");
  const Finished finished = Run({"run", kV3, "--prompt-ids", "5,6", "--max-tokens", "4",
                                 "--ignore-eos", "--config", wide, "--print-load", "--print-ids"});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  for (const char* note :
       {"moe_config.backend WIDEEP: experts run as Moebius's grouped products for ",
        "and tokens travel by its exchange", "kv_cache_config.dtype is ignored",
        "--cuda-graph-config is ignored"}) {
    EXPECT_TRUE(Contains(finished.err, note)) << note << "\n" << finished.err;
  }
  // 2 tokens of the prompt and 3 of the answer, on 4 experts each, in 2 layers.
  EXPECT_TRUE(Contains(finished.out, "40 tokens came to experts: 4 of 16")) << finished.out;
  EXPECT_TRUE(Contains(finished.out, "   1       ")) << finished.out;
  EXPECT_TRUE(Contains(finished.out, " 9 ")) << "slots of a rank: " << finished.out;
  EXPECT_TRUE(Contains(finished.out, "placement changed 0 times: 0 slots, 0.0 MB\n"))
      << finished.out;

  const std::string typo = Write("typo.yaml",
                                 "max_batch_size: 4\nmoe_config:\n  backend: WIDEEP\n"
                                 "  max_num_token: 9216\n");
  const Finished wrong = Run({"serve", kV3, "--config", typo});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_TRUE(Contains(wrong.err,
                       "typo.yaml:4: unknown key moe_config.max_num_token (did you mean "
                       "max_num_tokens?)"))
      << wrong.err;
  const std::string slots = Write("slots.yaml", "moe_config:\n  load_balancer:\n    num_slot: 8\n");
  EXPECT_TRUE(Contains(Run({"serve", kV3, "--config", slots}).err,
                       "slots.yaml:3: unknown key moe_config.load_balancer.num_slot (did you mean "
                       "num_slots?)"));
}

TEST_F(RanksTest, AFilesKernelLibrariesSayWhatRunsHere) {
  for (const std::string backend : {"CUTLASS", "TRTLLM", "CUTEDSL"}) {
    const std::string file = Write("kernels.yaml", "moe_config:\n  backend: " + backend + "\n");
    const Finished cut =
        Run({"run", kV3, "--prompt-ids", "5,6", "--max-tokens", "1", "-tp", "2", "--config", file});
    EXPECT_EQ(cut.exit_code, 0) << cut.err;
    const std::string note =
        "moe_config.backend " + backend + ": experts run as Moebius's grouped products for ";
    EXPECT_TRUE(Contains(cut.err, note)) << cut.err;
    // Only WIDEEP asks for whole experts on ranks by itself.
    EXPECT_FALSE(Contains(cut.err, "travel by its exchange")) << cut.err;
  }
  const std::string wrong = Write("kernels.yaml", "moe_config: {backend: MARLIN}\n");
  const Finished refused = Run({"run", kV3, "--prompt-ids", "5,6", "--config", wrong});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_TRUE(Contains(refused.err, "MARLIN") && Contains(refused.err, "CUTLASS")) << refused.err;
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

TEST_F(RanksTest, NamesOfBackendsSayWhatTheyAreHere) {
  const struct {
    const char* name;
    const char* says;
  } names[] = {
      {"deepep_low_latency", "all2all with --exchange-mode latency"},
      {"deepep_high_throughput", "all2all with --exchange-mode throughput"},
      {"pplx", "allgather_reducescatter, which vLLM"},
      {"naive", "allgather_reducescatter, which vLLM"},
      {"allgather_reducescatter", "every rank gathers all tokens"},
      {"inproc", "ranks are threads of one process"},
  };
  for (const auto& [name, says] : names) {
    const Finished finished = Run({"run", kV3, "--prompt-ids", "5", "--max-tokens", "2", "-dp", "2",
                                   "-ep", "--all2all-backend", name});
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    EXPECT_TRUE(Contains(finished.err, fmt::format("moebius: --all2all-backend {}: ", name)) &&
                Contains(finished.err, says))
        << finished.err;
  }
  const Finished alone = Run(
      {"run", kV3, "--prompt-ids", "5", "--max-tokens", "2", "-ep", "--all2all-backend", "pplx"});
  EXPECT_EQ(alone.exit_code, 0);
  EXPECT_TRUE(Contains(alone.err, "--enable-expert-parallel is ignored: one rank holds every") &&
              Contains(alone.err, "--all2all-backend pplx is ignored: "))
      << alone.err;
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
