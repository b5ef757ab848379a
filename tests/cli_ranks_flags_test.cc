// The flags and files of many ranks, in vLLM's and TensorRT-LLM's words: what is taken, what it
// means here, and what is refused before anything starts.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ranks_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

TEST_F(RanksTest, WhatCannotBeIsSaidBeforeAnythingStarts) {
  const struct {
    Args args;
    int exit_code;
    const char* says;
  } cases[] = {
      {{"-tp", "3"}, 2, "--tensor-parallel-size 3 is not possible with this model: "},
      {{"-tp", "3"}, 2, "; the nearest layout that is: --pipeline-parallel-size 3"},
      {{"-pp", "4"}, 2, "pipeline_parallel_size is 4, expected at most the 3 layers"},
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
                                 "  host_cache_size: 1024\n"
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
        "and tokens travel by its exchange", "kv_cache_config.host_cache_size is ignored",
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

// As a start has them: slots that ranks do not divide, too, and room for experts that arrive.
TEST_F(RanksTest, ADryRunKnowsTheSlots) {
  const std::string block = Write("block.yaml",
                                  "tensor_parallel_size: 3\n"
                                  "moe_expert_parallel_size: 3\n"
                                  "enable_attention_dp: true\n"
                                  "moe_config:\n"
                                  "  load_balancer: {num_slots: 20, layer_updates_per_iter: 1}\n");
  const Args dry = {"serve", kV3, "--dry-run", "--device", "cpu"};
  const Args flags = {"-dp", "3", "-ep", "--enable-eplb", "--num-redundant-experts", "4"};
  for (const Args& args : {Args{"--config", block}, flags}) {
    const Finished finished = Run(dry + args);
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    EXPECT_TRUE(Contains(finished.out, "experts: 20 slots for 16 experts on 3 ranks, 6 or 7 each"))
        << finished.out;
    EXPECT_TRUE(Contains(finished.out, "(+4 ")) << finished.out;
  }
  const auto weights = [&](const char* eplb) {
    const Finished finished = Run(dry + flags + Args{"--eplb-config", eplb});
    const std::string name = "redundant slots";
    const size_t at = finished.out.find(name);
    EXPECT_NE(at, std::string::npos) << finished.out;
    return finished.out.substr(at, finished.out.find('\n', at) - at);
  };
  EXPECT_NE(weights(R"({"layer_updates_per_iter": 0})"), weights(R"({"num_staging_slots": 40})"));
  const Finished many =
      Run(dry + Args{"-dp", "3", "-ep", "--enable-eplb"} + Args{"--num-redundant-experts", "33"});
  EXPECT_EQ(many.exit_code, 0) << many.err;
  EXPECT_TRUE(Contains(many.out, "for nothing")) << many.out;
}

TEST_F(RanksTest, ADryRunKnowsWhatGpusDoNotTake) {
  const Args dry = {"serve",
                    kV3,
                    "--dry-run",
                    "--load-format",
                    "dummy",
                    "--hf-overrides",
                    R"({"n_routed_experts": 1024})"};
  const Finished planned = Run(dry + Args{"--device", "h200"});
  EXPECT_EQ(planned.exit_code, 0) << planned.err;
  EXPECT_TRUE(Contains(planned.out, "not serve it: the number of experts is 1024, expected"))
      << planned.out;
  EXPECT_FALSE(Contains(Run(dry + Args{"--device", "cpu"}).out, "not serve it"));
}

// A start says it before any rank is there, and a dry run says the same.
TEST_F(RanksTest, ARoutingThatNoRankCanHaveIsRefused) {
  const Args hot = {"--load-format", "dummy", "--routing", "hot:1.9"};
  const struct {
    Args args;
    const char* says;  // nothing: it can be
  } cases[] = {
      {Args{"-dp", "2", "-ep"} + hot, ""},
      {Args{"-dp", "4", "-ep", "--load-format", "dummy", "--routing", "hot:5"},
       "--routing is hot:5, expected several expert parallel ranks of which one can be so hot: "
       "there are 4 with 4 experts"},
      {Args{"-tp", "2"} + hot, "there are 1 with 16 experts"},
      {hot, "there are 1 with 16 experts"},
      {{"--routing", "uniform"}, "--routing needs --load-format dummy"},
  };
  for (const auto& c : cases) {
    const Finished dry = Run(Args{"serve", kV3, "--dry-run", "--device", "cpu"} + c.args);
    const bool can_be = *c.says == '\0';
    EXPECT_EQ(dry.exit_code, can_be ? 0 : 2) << c.says << dry.err;
    EXPECT_TRUE(Contains(dry.err, c.says)) << c.says << "\n" << dry.err;
    if (can_be) continue;
    const Finished start = Run(Args{"serve", kV3, "--port", "0"} + c.args);
    EXPECT_EQ(start.exit_code, 2) << c.says << start.err;
    EXPECT_TRUE(Contains(start.err, c.says) && !Contains(start.err, "error: rank ")) << start.err;
  }
}

// Of another machine, too: the same slots, as many to stage, and what the host pool takes of it.
TEST_F(RanksTest, ADryRunKnowsTheSlotsOfGpus) {
  const auto dry = [&](const char* device, const char* copies, const char* eplb) {
    const Finished finished =
        Run({"serve", "deepseek-ai/DeepSeek-R1", "-dp", "8", "-ep", "--max-model-len", "4096",
             "--dry-run", "--device", device, "--enable-eplb", "--num-redundant-experts", copies,
             "--eplb-config", eplb});
    EXPECT_TRUE(finished.err.empty()) << finished.err;
    return finished.out;
  };
  const auto slots = [](const std::string& out) {
    const size_t at = out.find("redundant slots");
    EXPECT_NE(at, std::string::npos) << out;
    return at == std::string::npos ? 0 : std::stod(out.substr(at + 15));
  };
  // 4 slots a rank in 58 layers, then so many in one, of 3 x 7168 x 2048 bytes and scales.
  const std::string many = dry("h200", "32", R"({"num_staging_slots": 40})");
  EXPECT_NEAR(slots(many), (4 * 58 + 40) * 0.04405, 0.06) << many;
  EXPECT_TRUE(Contains(many, "experts: 288 slots for 256 experts on 8 ranks, 36 each")) << many;
  const std::string few = dry("mi300x", "32", R"({"num_staging_slots": 1})");
  EXPECT_NEAR(slots(few), (4 * 58 + 1) * 0.04405, 0.06) << few;
  EXPECT_FALSE(Contains(few, "host pool")) << few;
  // 58 layers of 256 experts.
  const std::string pooled = dry("h200", "33", R"({"host_pool": true})");
  EXPECT_TRUE(Contains(pooled, "289 slots for 256 experts on 8 ranks, 36 or 37 each")) << pooled;
  EXPECT_TRUE(Contains(pooled, "It takes 654.1 GB of /dev/shm, and ")) << pooled;
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

}  // namespace
}  // namespace moebius
