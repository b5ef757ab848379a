// `moebius serve` as a user runs it: the program, its port, its signals, and the command lines of
// vLLM's recipes.
#include <arpa/inet.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include "serve_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

const std::string kDemo = std::string(MOEBIUS_SOURCE_DIR) + "/models/demo";

std::string Question(const std::string& text, int max_tokens, bool ignore_eos = false) {
  return json{{"messages", {{{"role", "user"}, {"content", text}}}},
              {"max_tokens", max_tokens},
              {"temperature", 0},
              {"ignore_eos", ignore_eos}}
      .dump();
}

TEST_F(ServeTest, ALoadOnItFindsMistakesFirstAndCanBeInterrupted) {
  Serve({kDemo, "--served-model-name", "demo", "--api-key", "secret"});
  const Args bench = {"bench",       "serve", "--base-url",          url_, "--num-prompts", "4",
                      "--tokenizer", kDemo,   "--random-output-len", "8"};
  const Finished no_key = Run(bench + Args{"--model", "demo"});
  EXPECT_EQ(no_key.exit_code, 1);
  EXPECT_TRUE(Contains(no_key.err, "trial request before the load failed: HTTP 401: "))
      << no_key.err;
  const Args known = bench + Args{"--api-key", "secret"};
  const Finished wrong = Run(known + Args{"--model", "demon"});
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_TRUE(Contains(wrong.err, "HTTP 404: the model 'demon' does not exist here")) << wrong.err;
  const Finished too_long = Run(known + Args{"--random-input-len", "100000"});
  EXPECT_EQ(too_long.exit_code, 1);
  EXPECT_TRUE(Contains(too_long.err, "failed: HTTP 400: ")) << too_long.err;
  EXPECT_EQ(wrong.out + too_long.out, "");

  Write("stdin", "");
  const pid_t load = Start(known + Args{"--random-input-len", "16", "--max-concurrency", "2",
                                        "--duration", "100", "--ready-check-timeout-sec", "0"});
  // Some answers are whole.
  const std::string served = "vllm:request_success_total{";
  for (int i = 0; i < 6000; ++i) {
    const std::string metrics = Fetch("GET", "/metrics").body;
    const size_t at = metrics.find("finished_reason=\"length\"} ", metrics.find(served));
    if (at != std::string::npos && std::atoi(metrics.c_str() + at + 26) > 4) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(load, SIGINT);
  EXPECT_EQ(Wait(load), 130);
  const std::string report = ReadFile(folder_ + "stdout");
  EXPECT_TRUE(Contains(report, "Failed requests:                         0 ")) << report;
  EXPECT_TRUE(Contains(report, "Cancelled requests (interrupted):        ")) << report;
  EXPECT_FALSE(Contains(report, "Successful requests:                     0 ")) << report;
  EXPECT_TRUE(Contains(ReadFile(folder_ + "stderr"), "interrupted"));
}

TEST_F(ServeTest, AnswersAsRunDoesAndEndsByASignal) {
  const std::string log = folder_ + "steps.jsonl";
  Serve(
      {kDemo, "--served-model-name", "demo", "other", "--step-log", log, "--enable-log-requests"});
  EXPECT_TRUE(Contains(ReadFile(folder_ + "server_out"), "page at " + url_ + "/"));
  EXPECT_EQ(Fetch("GET", "/health").status, 200);
  const json models = json::parse(Fetch("GET", "/v1/models").body);
  EXPECT_EQ(models["data"][0]["id"], "demo");
  EXPECT_EQ(models["data"][0]["root"], kDemo);

  const Finished local =
      Run({"run", kDemo, "-p", "What is 47 * 36?", "--temperature", "0", "--max-tokens", "60"});
  ASSERT_EQ(local.exit_code, 0) << local.err;
  const json answer =
      json::parse(Fetch("POST", "/v1/chat/completions", Question("What is 47 * 36?", 60)).body);
  EXPECT_EQ(answer["choices"][0]["message"]["content"].get<std::string>() + "\n", local.out);
  // The program's own client, streamed.
  const Finished remote = Run(
      {"run", "--url", url_, "-p", "What is 47 * 36?", "--temperature", "0", "--max-tokens", "60"});
  EXPECT_EQ(remote.exit_code, 0) << remote.err;
  EXPECT_EQ(remote.out, local.out);
  EXPECT_TRUE(Contains(remote.err, "finish: stop")) << remote.err;
  const Finished engine = Run({"run", "--url", url_, "-p", "x", "--max-num-seqs", "4"});
  EXPECT_EQ(engine.exit_code, 2);
  EXPECT_TRUE(Contains(engine.err, "--max-num-seqs goes with a model that is loaded here"))
      << engine.err;
  const Finished chat =
      Run({"chat", "other", "--url", url_ + "/v1", "--temperature", "0", "--max-tokens", "60"},
          "What is 47 * 36?\n");
  EXPECT_EQ(chat.out, local.out) << chat.err;
  const Finished unknown = Run({"run", "nobody", "--url", url_, "-p", "x"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_TRUE(Contains(unknown.err, "404") && Contains(unknown.err, "nobody")) << unknown.err;

  EXPECT_EQ(End(SIGINT), 0) << ReadFile(folder_ + "server_err");
  std::istringstream lines(ReadFile(log));
  int num_lines = 0;
  for (std::string line; std::getline(lines, line); ++num_lines) {
    EXPECT_TRUE(json::parse(line, nullptr, false).is_object()) << line;
  }
  EXPECT_GT(num_lines, 10);
  const std::string err = ReadFile(folder_ + "server_err");
  EXPECT_TRUE(Contains(err, "POST /v1/chat/completions: 200 after ")) << err;
  EXPECT_FALSE(Contains(err, "47 * 36")) << err;
}

TEST_F(ServeTest, ARunningRequestEndsBeforeTheServerDoes) {
  Serve({kDemo});
  json answer;
  std::thread client([&] {
    answer = json::parse(
        Fetch("POST", "/v1/chat/completions", Question("Tell me a story.", 300, true)).body);
  });
  WaitForLoad();
  EXPECT_EQ(End(SIGTERM), 0) << ReadFile(folder_ + "server_err");
  client.join();
  EXPECT_EQ(answer["usage"]["completion_tokens"], 300) << answer;
}

TEST_F(ServeTest, ASecondSignalEndsAtOnce) {
  Serve({kDemo, "--max-num-seqs", "1"});
  net::HttpClientOptions options;
  options.base_url = url_;
  const auto client = net::HttpClient::Create(options);
  ASSERT_TRUE(client);
  net::HttpRequest request;
  request.method = "POST";
  request.target = "/v1/chat/completions";
  request.body = Question("Count.", 1900, true);
  for (int i = 0; i < 32; ++i) (*client)->Start(request, {});
  WaitForLoad();
  kill(server_, SIGTERM);
  for (int i = 0; i < 15000 && !Contains(ReadFile(folder_ + "server_err"), "stopping"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(End(SIGTERM), 128 + SIGTERM);
}

TEST_F(ServeTest, KeysComeFromFlagsOrTheEnvironment) {
  Serve({kDemo, "--api-key", "flag-1", "flag-2"}, {"VLLM_API_KEY=unused"});
  EXPECT_EQ(Fetch("GET", "/v1/models").status, 401);
  EXPECT_EQ(Fetch("GET", "/v1/models", "", "flag-2").status, 200);
  EXPECT_EQ(Fetch("GET", "/v1/models", "", "unused").status, 401);
  EXPECT_EQ(Fetch("GET", "/health").status, 200);
  EXPECT_EQ(End(SIGTERM), 0);
  url_.clear();
  Serve({kDemo}, {"MOEBIUS_API_KEY=secret"});
  EXPECT_EQ(Fetch("GET", "/v1/models").status, 401);
  EXPECT_EQ(Run({"run", "--url", url_, "-p", "Hi", "--max-tokens", "1"}).exit_code, 1);
  const Finished keyed = Run({"run", "--url", url_, "-p", "Hi", "--max-tokens", "1"}, "", false,
                             {"MOEBIUS_API_KEY=secret"});
  EXPECT_EQ(keyed.exit_code, 0) << keyed.err;
  EXPECT_EQ(End(SIGTERM), 0);
}

TEST_F(ServeTest, AYamlFileHasTheSameKeys) {
  const std::string config =
      Write("serve.yaml", "model: " + kDemo +
                              "\nserved-model-name: [a, b]\nmax_model_len: 512\n"
                              "override-generation-config: {max_tokens: 3}\n");
  Serve({"--config", config});
  const json models = json::parse(Fetch("GET", "/v1/models").body);
  EXPECT_EQ(models["data"][0]["id"], "a");
  EXPECT_EQ(models["data"][0]["max_model_len"], 512);
  EXPECT_EQ(End(SIGTERM), 0);
}

TEST_F(ServeTest, RandomWeightsOfAKnownName) {
  Serve({"deepseek-ai/DeepSeek-V2-Lite", "--load-format", "dummy", "--hf-overrides",
         R"({"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 128, "moe_intermediate_size": 64, "n_routed_experts": 8,
             "num_experts_per_tok": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
             "qk_rope_head_dim": 8, "v_head_dim": 16, "max_position_embeddings": 512})"});
  const json answer = json::parse(
      Fetch("POST", "/v1/completions",
            R"({"model": "deepseek-ai/DeepSeek-V2-Lite", "prompt": [5, 6, 7], "max_tokens": 4,
                "ignore_eos": true})")
          .body);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 4) << answer;
  EXPECT_EQ(End(SIGTERM), 0);
}

TEST_F(ServeTest, ATakenPortIsNamed) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = std::to_string(ntohs(address.sin_port));
  const Finished taken = Run({"serve", kDemo, "--host", "127.0.0.1", "--port", port});
  close(listener);
  EXPECT_EQ(taken.exit_code, 1);
  EXPECT_TRUE(Contains(taken.err, port) && Contains(taken.err, "--port names another"))
      << taken.err;
}

TEST_F(ServeTest, WhatCannotBeServedIsSaid) {
  const struct {
    Args args;
    int exit_code;
    const char* says;
  } cases[] = {
      {{"--tensor-parallel-size", "3"}, 2, "--tensor-parallel-size 3 is not possible"},
      {{"-dp", "2", "-ep", "--nnodes", "2"}, 2, "--nnodes is 2"},
      {{"--ssl-certfile", "cert.pem"}, 2, "TLS"},
      {{"--enable-lora"}, 2, "LoRA"},
      {{"--headless"}, 2, "--headless"},
      {{"--port", "65536"}, 2, "--port"},
      {{"--prot", "1"}, 2, "did you mean --port?"},
      {{"--reasoning-parser", "nobody"}, 2, "deepseek_r1"},
      {{"--request-timeout", "soon"}, 2, "--request-timeout"},
      {{"--override-generation-config", "[]"}, 2, "JSON object"},
      {{"--all2all-backend", "x"}, 2, "allgather_reducescatter"},
      {{"--kv-cache-dtype", "int3"}, 2, "expected one of auto, bfloat16, fp8"},
      {{"--quantization", "awq"}, 2, "auto none fp8"},
      {{"--chat-template", "/no/such/file"}, 1, "--chat-template"},
      {{"--step-log", "/no/such/folder/x"}, 1, "/no/such/folder/x"},
      {{"--host", "no.such.host.invalid", "--port", "0"}, 1, "no.such.host.invalid"},
      {{"--shutdown-timeout", "-1"}, 2, "--shutdown-timeout is -1, expected seconds from 0"},
      {{"--max-model-len", "999999"}, 2, "--max-model-len is 999999"},
      {{"--served-model-name", "a\xff"}, 2, "not from byte 1 on"},
  };
  for (const auto& c : cases) {
    const Finished finished = Run(Args{"serve", kDemo} + c.args);
    EXPECT_EQ(finished.exit_code, c.exit_code) << c.args.front() << finished.err;
    EXPECT_TRUE(Contains(finished.err, c.says)) << c.args.front() << ": " << finished.err;
  }
  const Finished hub = Run({"serve", "deepseek-ai/DeepSeek-R1"});
  EXPECT_EQ(hub.exit_code, 1);
  EXPECT_TRUE(Contains(hub.err, "--load-format dummy") && Contains(hub.err, "--dry-run"))
      << hub.err;
  EXPECT_EQ(Run({"serve"}).exit_code, 2);
  // The folder that stands in for a known name is nobody's business.
  const Finished large = Run({"serve", "deepseek-ai/DeepSeek-R1", "--load-format", "dummy",
                              "--port", "0", "--max-model-len", "9999999"});
  EXPECT_EQ(large.exit_code, 2) << large.err;
  const Finished broken = Run({"serve", "deepseek-ai/DeepSeek-V2-Lite", "--load-format", "dummy",
                               "--port", "0", "--hf-overrides", R"({"hidden_size": -1})"});
  EXPECT_EQ(broken.exit_code, 1) << broken.err;
  EXPECT_TRUE(Contains(broken.err, "deepseek-ai/DeepSeek-V2-Lite/config.json: ")) << broken.err;
}

// The eleven servers of the benchmarks in AMD's "vLLM MoE Playbook" (appendix): what differs.
struct Recipe {
  const char* model;
  int tp;
  int dp;
  bool ep;
  const char* layout;
};
constexpr const char* kR1 = "deepseek-ai/DeepSeek-R1";
constexpr const char* kQwen = "Qwen/Qwen3-235B-A22B-Instruct-2507";
constexpr const char* kLlama4 = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8";
constexpr Recipe kPlaybook[] = {
    {kR1, 1, 8, false, "DP8"},     {kR1, 1, 8, true, "DP8+EP"},     {kR1, 8, 1, true, "TP8+EP"},
    {kQwen, 8, 1, false, "TP8"},   {kQwen, 8, 1, true, "TP8+EP"},   {kQwen, 1, 8, false, "DP8"},
    {kQwen, 1, 8, true, "DP8+EP"}, {kLlama4, 8, 1, false, "TP8"},   {kLlama4, 8, 1, true, "TP8+EP"},
    {kLlama4, 1, 8, false, "DP8"}, {kLlama4, 1, 8, true, "DP8+EP"},
};

TEST_F(ServeTest, TheElevenCommandLinesOfThePlaybook) {
  for (const Recipe& recipe : kPlaybook) {
    const bool is_r1 = recipe.model == kR1;
    Args environment = {is_r1 ? "VLLM_ROCM_USE_AITER=0" : "VLLM_ROCM_USE_AITER=1"};
    if (recipe.dp > 1) environment.emplace_back("VLLM_ALL2ALL_BACKEND=allgather_reducescatter");
    Args args = {"serve", recipe.model, "--tensor-parallel-size", std::to_string(recipe.tp)};
    if (recipe.dp > 1) args = args + Args{"--data-parallel-size", std::to_string(recipe.dp)};
    if (recipe.ep) args.emplace_back("--enable-expert-parallel");
    args = args + Args{"--max-model-len", "32768"};
    const bool is_dp_flag = recipe.dp > 1 || is_r1;
    if (is_dp_flag) args.emplace_back("--disable-nccl-for-dp-synchronization");
    args = args + Args{"--trust-remote-code",
                       "--distributed-executor-backend",
                       "mp",
                       "--swap-space",
                       "16",
                       "--disable-log-requests",
                       "--port",
                       "8000"};
    const std::string name = fmt::format("{} {}", recipe.model, recipe.layout);
    for (const Args& device : {Args{"--device", "mi300x"}, Args{}}) {
      const Finished dry = Run(args + Args{"--dry-run"} + device, "", false, environment);
      EXPECT_EQ(dry.exit_code, 0) << name << dry.out << dry.err;
      EXPECT_TRUE(Contains(dry.out, fmt::format("{} as {} on 8 x ", recipe.model, recipe.layout)))
          << name << dry.out;
      for (const char* part : {"What a rank holds", "Memory of the fullest rank", "routed experts",
                               device.empty() ? "all-gather|all-to-all"  // CPUs: our own ranks
                                              : "all-reduce|reduce-scatter",
                               "weights are"}) {
        const std::string text = part;
        const size_t bar = text.find('|');
        EXPECT_TRUE(Contains(dry.out, text.substr(0, bar)) ||
                    (bar != std::string::npos && Contains(dry.out, text.substr(bar + 1))))
            << name << ": " << part << dry.out;
      }
      EXPECT_EQ(Contains(dry.out, "It holds"), !device.empty()) << name << dry.out;
      // One line each.
      for (const char* said :
           {"VLLM_ROCM_USE_AITER", "--trust-remote-code", "--distributed-executor-backend",
            "--swap-space", "--disable-log-requests"}) {
        EXPECT_TRUE(Contains(dry.err, fmt::format("moebius: {} is ignored: ", said)))
            << name << dry.err;
      }
      EXPECT_EQ(Contains(dry.err, "--disable-nccl-for-dp-synchronization is ignored"), is_dp_flag);
      EXPECT_EQ(Contains(dry.err, "VLLM_ALL2ALL_BACKEND is --all2all-backend"), recipe.dp > 1);
      EXPECT_FALSE(Contains(dry.err, "error")) << dry.err;
    }
    // Without --dry-run: the name is no folder here.
    EXPECT_EQ(Run(args, "", false, environment).exit_code, 1) << name;
  }
}

TEST_F(ServeTest, DryRunsJudge) {
  const Finished own = Run({"serve", kDemo, "--dry-run"});
  EXPECT_EQ(own.exit_code, 0) << own.err;
  EXPECT_TRUE(Contains(own.out, "demo as one rank on ") && Contains(own.out, "It holds"))
      << own.out;
  EXPECT_TRUE(Contains(own.out, " M parameters, ")) << own.out;
  // What a start refuses is refused.
  for (const Args& flags :
       {Args{"--max-model-len", "999999"}, Args{"--max-num-seqs", "0"},
        Args{"--chat-template", "/no/such/file"}, Args{"--step-log", "/nonexistent/x"}}) {
    const Finished start = Run(Args{"serve", kDemo, "--port", "0"} + flags);
    const Finished dry = Run(Args{"serve", kDemo, "--port", "0", "--dry-run"} + flags);
    EXPECT_NE(dry.exit_code, 0) << flags[0];
    EXPECT_EQ(dry.exit_code, start.exit_code) << flags[0];
    EXPECT_EQ(dry.err, start.err);
  }
  const std::string log = folder_ + "steps.jsonl";
  EXPECT_EQ(Run({"serve", kDemo, "--dry-run", "--step-log", log}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(log));
  const Finished planned = Run({"serve", "openai/gpt-oss-120b", "--dry-run", "--device", "h200"});
  EXPECT_EQ(planned.exit_code, 0) << planned.err;
  EXPECT_TRUE(Contains(planned.out, "This engine can plan the model but not serve it: ") &&
              Contains(planned.out, "gpt_oss") && Contains(planned.out, "It holds"))
      << planned.out;
  EXPECT_FALSE(Contains(planned.out, "moebius-model-")) << planned.out;
  const Finished heads = Run({"serve", "Qwen/Qwen3-235B-A22B", "-tp", "3", "--dry-run"});
  EXPECT_EQ(heads.exit_code, 2);
  EXPECT_TRUE(Contains(heads.err,
                       "Total number of attention heads (64) must be divisible by "
                       "tensor parallel size (3)"))
      << heads.err;
  EXPECT_TRUE(Contains(heads.out, "nearest legal: ")) << heads.out;
  // A start ignores copies without --enable-eplb, and says so; other stacks refuse them.
  const Args copies = {"serve", kR1, "-dp", "8", "-ep", "--dry-run"};
  const Args redundant = {"--eplb-config.num_redundant_experts", "32"};
  const Finished eplb = Run(copies + redundant + Args{"--device", "cpu"});
  EXPECT_TRUE(Contains(eplb.err, "--eplb-config is ignored: it takes --enable-eplb")) << eplb.err;
  EXPECT_FALSE(Contains(eplb.out, "redundant)")) << eplb.out;
  EXPECT_EQ(Run(copies + redundant + Args{"--device", "h200"}).exit_code, 2);
  const Args tight = {"serve", kR1, "-tp", "8", "--device", "h100", "--dry-run"};
  const Finished small = Run(tight);
  EXPECT_EQ(small.exit_code, 1);
  EXPECT_TRUE(Contains(small.out, "It does not hold")) << small.out;
  // The flag of the command line stands over the variable.
  const Finished backend =
      Run({"serve", kR1, "-dp", "8", "-ep", "--all2all-backend", "all2all", "--device", "h200",
           "--dry-run"},
          "", false, {"VLLM_ALL2ALL_BACKEND=allgather_reducescatter", "VLLM_NO_SUCH_THING=1"});
  EXPECT_EQ(backend.exit_code, 0) << backend.err;
  EXPECT_TRUE(Contains(backend.out, "all-to-all")) << backend.out;
  EXPECT_TRUE(Contains(backend.err, "VLLM_NO_SUCH_THING is unknown")) << backend.err;
  EXPECT_EQ(Run({"serve", kR1, "--device", "no-such", "--dry-run"}).exit_code, 2);
  // Where there is no GPU, what is said of this machine is said to be of this machine.
  const Finished here = Run({"serve", kR1, "-dp", "8", "-ep", "--dry-run"});
  const size_t hint = here.out.find("This machine has no GPU");
  EXPECT_LT(hint, here.out.find("The checkpoint's weights")) << here.out;
  EXPECT_TRUE(hint != std::string::npos || Contains(here.out, "HBM")) << here.out;
}

}  // namespace
}  // namespace moebius
