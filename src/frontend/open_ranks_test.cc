// Which ranks run on GPUs, told without one.
#include "frontend/open_ranks.h"

#include <gtest/gtest.h>

namespace moebius::frontend {
namespace {

OpenOptions OnGpus(int tp, int dp, int pp, bool ep) {
  OpenOptions options;
  options.device = "cuda";
  options.parallel.tensor_parallel_size = tp;
  options.parallel.data_parallel_size = dp;
  options.parallel.pipeline_parallel_size = pp;
  options.parallel.enable_expert_parallel = ep;
  return options;
}

model::ModelConfig Moe() {
  model::ModelConfig config;
  config.model_type = "some_moe";
  config.moe.num_experts = 16;
  return config;
}

std::string ErrorOf(const OpenOptions& options, const model::ModelConfig& config, int num_devices) {
  const Status status = CheckDeviceRanks(options, config, num_devices);
  if (status) return "";
  EXPECT_EQ(status.error().code(), ErrorCode::kInvalidArgument);
  return status.error().message();
}

TEST(OpenRanks, ExpertsOfGpusTakeMoreTokensAtOnce) {
  OpenOptions options;
  EXPECT_EQ(MoeTokensOf(options), 0);  // as the model says
  options.device = "cuda";
  EXPECT_EQ(MoeTokensOf(options), 8192);
  options.max_moe_tokens = 512;
  EXPECT_EQ(MoeTokensOf(options), 512);
  options.device = "cpu";
  EXPECT_EQ(MoeTokensOf(options), 512);
}

TEST(OpenRanks, AGpuForEachRank) {
  EXPECT_EQ(ErrorOf(OnGpus(1, 2, 1, true), Moe(), 2), "");
  EXPECT_EQ(ErrorOf(OnGpus(2, 2, 1, false), Moe(), 8), "");
  EXPECT_EQ(ErrorOf(OnGpus(1, 2, 2, true), Moe(), 4), "");
  const OpenOptions wide = OnGpus(2, 4, 1, true);
  EXPECT_EQ(ErrorOf(wide, Moe(), 4),
            "--tensor-parallel-size 2 --data-parallel-size 4 --enable-expert-parallel is 8 ranks, "
            "expected at most 4 with --device cuda, a GPU for each");
}

TEST(OpenRanks, WhatGpusDoNotDoNamesTheFlag) {
  model::ModelConfig scales_input = Moe();
  scales_input.moe.router = model::RouterKind::kSigmoidInput;
  scales_input.moe.top_k = 2;
  EXPECT_EQ(ErrorOf(OnGpus(2, 1, 1, true), scales_input, 8)
                .find("--enable-expert-parallel is on, expected --no-enable-expert-parallel for a "
                      "some_moe model of 2 experts a token with --device cuda"),
            0u);
  scales_input.moe.top_k = 1;
  EXPECT_EQ(ErrorOf(OnGpus(2, 1, 1, true), scales_input, 8), "");
  EXPECT_EQ(ErrorOf(OnGpus(2, 1, 1, false), scales_input, 8), "");
}

TEST(OpenRanks, RanksOnGpusAreSaidToBe) {
  OpenOptions options = OnGpus(1, 2, 1, true);
  options.threads = 1;
  model::ModelConfig config = Moe();
  config.hidden_size = 64;
  EXPECT_EQ(DescribeRanks(options, config),
            "2 ranks (DP2+EP), each a process with a GPU and 1 thread; tokens travel by all2all, "
            "mode auto: "
            "latency below 1024 tokens a rank, throughput from there on");
}

TEST(OpenRanks, WhatBalancingDoesIsSaid) {
  OpenOptions options;
  options.parallel.data_parallel_size = 8;
  options.parallel.enable_expert_parallel = true;
  model::ModelConfig config = Moe();
  config.num_layers = 3;
  config.layers.resize(3);
  config.layers[1].moe = config.layers[2].moe = true;
  EXPECT_EQ(DescribeBalance(options, config), "");
  options.balance.is_on = true;
  EXPECT_EQ(DescribeBalance(options, config),
            "experts: 16 slots for 16 experts on 8 ranks, 2 each; placement in order; nothing "
            "moves");
  options.balance.num_slots = 136;  // 17 on a rank, of 16 experts
  EXPECT_EQ(DescribeBalance(options, config),
            "experts: 136 slots for 16 experts on 8 ranks, 17 each; placement in order; 8 slots of "
            "a layer hold an expert that its rank has already, for nothing; nothing moves");
  options.balance.num_slots = 18;
  options.balance.online.layer_updates_per_iter = 1;
  EXPECT_EQ(DescribeBalance(options, config),
            "experts: 18 slots for 16 experts on 8 ranks, 2 or 3 each; placement in order; up to 1 "
            "layer may change every 100 steps");
  options.balance.online.layer_updates_per_iter = 2;
  options.balance.online.step_interval = 1;
  options.balance.source = "placement.yaml";
  for (int32_t slot = 0; slot < 18; ++slot) {
    options.balance.assignments[2].push_back(slot % 16);
  }
  const std::string half = DescribeBalance(options, config);
  EXPECT_NE(half.find("; placement from placement.yaml, 1 layer in order; up to 2 layers may "
                      "change every 1 step"),
            std::string::npos)
      << half;
  options.balance.assignments[1] = options.balance.assignments[2];
  const std::string whole = DescribeBalance(options, config);
  EXPECT_NE(whole.find("; placement from placement.yaml; up to"), std::string::npos) << whole;
}

// What the kernels would answer at the first step with an error of CUDA.
TEST(OpenRanks, ModelsThatGpusDoNotTakeAreRefusedAtTheStart) {
  OpenOptions options = OnGpus(1, 1, 1, false);
  const auto error_of = [&](const model::ModelConfig& config) -> std::string {
    const Status status = CheckDeviceModel(options, config);
    if (status) return "";
    EXPECT_EQ(status.error().code(), ErrorCode::kInvalidArgument);
    return status.error().message();
  };
  model::ModelConfig deepseek = Moe();
  deepseek.vocab_size = 129280;
  deepseek.moe = {.num_experts = 256, .top_k = 8, .num_groups = 8, .num_top_groups = 4};
  EXPECT_EQ(error_of(deepseek), "");
  model::ModelConfig dense;
  dense.vocab_size = 128256;
  EXPECT_EQ(error_of(dense), "");

  model::ModelConfig wide = deepseek;
  wide.vocab_size = 400000;
  EXPECT_EQ(
      error_of(wide),
      "vocab_size is 400000, expected at most 393216 for a some_moe model with --device cuda");
  model::ModelConfig many = deepseek;
  many.moe.num_experts = 1024;
  EXPECT_EQ(error_of(many),
            "the number of experts is 1024, expected at most 512 for a some_moe model with "
            "--device cuda");
  model::ModelConfig groups = deepseek;
  groups.moe.num_groups = 64;
  EXPECT_EQ(error_of(groups),
            "n_group is 64, expected at most 32 for a some_moe model with --device cuda");
  groups.moe.num_top_groups = 64;  // all of them: none
  EXPECT_EQ(error_of(groups), "");
  model::ModelConfig uneven = deepseek;
  uneven.moe.num_experts = 510;
  uneven.moe.num_groups = 5;
  EXPECT_EQ(error_of(uneven),
            "the number of experts in one of 5 groups (n_group) is 102, expected at most 96 for a "
            "some_moe model with --device cuda");
  model::ModelConfig all = deepseek;
  all.moe.top_k = 256;
  EXPECT_EQ(error_of(all),
            "num_experts_per_tok is 256, expected at most 32 for a some_moe model with --device "
            "cuda");
  options.moe_mode = "dense";
  EXPECT_EQ(
      error_of(all),
      "the number of experts a token (--moe-mode dense: all) is 256, expected at most 32 for a "
      "some_moe model with --device cuda");
}

}  // namespace
}  // namespace moebius::frontend
