#include "plan/step_time.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "plan/throughput.h"

namespace moebius::plan {
namespace {

using layout::ExchangeBackend;

class Step : public testing::Test {
 protected:
  StepTime Run(int tp, int dp, bool ep, const StepInput& input) {
    layout::ParallelConfig config = base_;
    config.tensor_parallel_size = tp;
    config.data_parallel_size = dp;
    config.enable_expert_parallel = ep;
    layout_ = layout::MakeLayout(config, model_.numbers);
    return EstimateStep(model_, layout_, device_, input);
  }
  static StepInput Decode(int64_t requests, int64_t context = 2000) {
    StepInput input;
    input.requests_per_rank = requests;
    input.context = context;
    return input;
  }
  static double Us(const StepTime& step, const std::string& name) {
    for (const OpTime& op : step.ops) {
      if (op.name == name) return op.us;
    }
    return 0;
  }

  ModelShape model_ = *LoadModelShape("deepseek-ai/DeepSeek-R1");
  Device device_ = *LoadDevice("h200");
  layout::ParallelConfig base_;
  layout::ParallelLayout layout_;
};

TEST_F(Step, IsTheSumOfItsOperations) {
  const StepTime step = Run(1, 8, true, Decode(64));
  double sum = 0;
  for (const OpTime& op : step.ops) sum += op.us;
  EXPECT_NEAR(sum, step.total_us, 1e-6 * sum);
  EXPECT_GT(Us(step, "dispatch"), 0);
  EXPECT_EQ(Us(step, "MoE all-reduce"), 0);
}

TEST_F(Step, OwnRanksExchangeUnderTpAndGatherWithoutEp) {
  base_.own_ranks = true;
  const StepTime tp_ep = Run(8, 1, true, Decode(16));
  EXPECT_GT(Us(tp_ep, "dispatch"), 0);
  EXPECT_GT(Us(tp_ep, "token gather"), 0);
  EXPECT_EQ(Us(tp_ep, "MoE all-reduce"), 0);
  EXPECT_EQ(Us(tp_ep, "overlapped"), 0);
  // The columns of hidden rows, k of them a token, and results: more than the rows themselves.
  const StepTime cut = Run(8, 1, false, Decode(512));
  EXPECT_EQ(Us(cut, "MoE all-reduce"), 0);
  EXPECT_GT(Us(cut, "combine"), 2 * Us(cut, "dispatch"));
  EXPECT_GT(Us(cut, "combine"), Us(Run(8, 1, true, Decode(512)), "combine"));
  // The same experts in all, whoever has them.
  EXPECT_NEAR(Us(Run(4, 2, false, Decode(256)), "experts"), Us(cut, "experts"),
              0.01 * Us(cut, "experts"));
}

TEST_F(Step, EveryLayoutHasItsCollectives) {
  const StepTime tp = Run(8, 1, false, Decode(16));
  EXPECT_GT(Us(tp, "attention all-reduce"), 0);
  EXPECT_GT(Us(tp, "MoE all-reduce"), 0);
  EXPECT_EQ(Us(tp, "dispatch"), 0);

  const StepTime tp_ep = Run(8, 1, true, Decode(16));
  EXPECT_GT(Us(tp_ep, "MoE all-reduce"), 0);
  EXPECT_GT(tp_ep.busiest_rank, 1);

  const StepTime dp = Run(1, 8, false, Decode(16));
  EXPECT_GT(Us(dp, "dispatch"), 0);  // gathered
  EXPECT_EQ(dp.busiest_rank, 1);

  const StepTime all = Run(4, 2, true, Decode(16));
  EXPECT_GT(Us(all, "token gather"), 0);
  EXPECT_GT(Us(all, "dispatch"), 0);

  base_.dense_ffn = layout::PartPlacement::kTp;
  base_.lm_head = layout::PartPlacement::kTp;
  const StepTime cut = Run(1, 8, true, Decode(16));
  EXPECT_GT(Us(cut, "dense FFN collectives"), 0);
  EXPECT_GT(Us(cut, "LM head collectives"), 0);
}

TEST_F(Step, PipelineStagesHoldAPartAndSend) {
  const double whole = Run(4, 1, true, Decode(16)).total_us;
  base_.pipeline_parallel_size = 2;
  const StepTime stage = Run(4, 1, true, Decode(16));
  EXPECT_GT(Us(stage, "stage send"), 0);
  // A turn is a step of its own to the host, and stages wait for each other.
  const double turn = Us(stage, "stages: hand-over, slowest");
  EXPECT_GT(turn, 500);
  EXPECT_NEAR((stage.total_us - turn) / whole, 0.5, 0.05);
  StepInput sum = Decode(16);
  sum.plain_sum = true;
  EXPECT_EQ(Us(Run(4, 1, true, sum), "stages: hand-over, slowest"), 0);
}

TEST_F(Step, ADeepPipelineIsNotFastForAToken) {
  const double cut = Run(8, 1, false, Decode(8)).total_us;
  base_.pipeline_parallel_size = 8;
  EXPECT_GT(8 * Run(1, 1, false, Decode(1)).total_us, cut);
}

TEST_F(Step, GrowsWithBatchContextAndSkew) {
  EXPECT_LT(Run(1, 8, true, Decode(16)).total_us, Run(1, 8, true, Decode(64)).total_us);
  EXPECT_LT(Run(1, 8, true, Decode(64, 1000)).total_us, Run(1, 8, true, Decode(64, 9000)).total_us);
  StepInput skewed = Decode(64);
  skewed.imbalance.zipf = 0.6;
  const StepTime before = Run(1, 32, true, skewed);
  skewed.imbalance.balanced = true;
  base_.num_redundant_experts = 32;
  base_.enable_eplb = true;
  const StepTime after = Run(1, 32, true, skewed);
  EXPECT_GT(before.busiest_rank, 1.3 * after.busiest_rank);
  EXPECT_GT(before.total_us, after.total_us);
}

TEST_F(Step, TwoBatchesHideTheNetworkOnlyWhereThereIsEnoughToHide) {
  StepInput input = Decode(256);
  const double plain = Run(1, 64, true, input).total_us;
  input.two_batch_overlap = true;
  EXPECT_LT(Run(1, 64, true, input).total_us, 0.9 * plain);
  StepInput small = Decode(16);
  const double one = Run(1, 8, true, small).total_us;
  small.two_batch_overlap = true;
  EXPECT_GT(Run(1, 8, true, small).total_us, one);  // weights are read twice
}

TEST_F(Step, SpeculationCostsLessThanItGains) {
  StepInput input = Decode(16);
  const StepTime one = Run(1, 8, true, input);
  input.mtp_tokens = 1.8;
  const StepTime two = Run(1, 8, true, input);
  EXPECT_EQ(StepTokens(input), 32);
  EXPECT_GT(two.total_us, one.total_us);
  EXPECT_LT(DecodeTpotMs(two, input), one.total_us / 1e3);
}

TEST_F(Step, CheaperExchangeIsTakenWhereNoneIsNamed) {
  const StepInput input = Decode(128);
  base_.all2all_backend = ExchangeBackend::kAllToAll;
  const double sparse = Run(1, 32, true, input).total_us;
  base_.all2all_backend = ExchangeBackend::kAllGatherReduceScatter;
  const double gathered = Run(1, 32, true, input).total_us;
  base_.all2all_backend = ExchangeBackend::kAuto;
  EXPECT_DOUBLE_EQ(Run(1, 32, true, input).total_us, std::min(sparse, gathered));
}

TEST_F(Step, EveryKnownModelAndWidthGivesAFiniteTime) {
  for (const std::string& name : KnownModels()) {
    model_ = *LoadModelShape(name);
    for (const std::string& device : KnownDevices()) {
      device_ = *LoadDevice(device);
      for (int dp : {1, 8, 72, 288}) {
        if (dp > 8 && model_.numbers.num_experts < dp) continue;
        StepInput input = Decode(8);
        const double decode = Run(1, dp, true, input).total_us;
        EXPECT_TRUE(decode > 100 && decode < 1e7) << name << " " << device << " " << dp;
        input.phase = Phase::kPrefill;
        input.prompt_tokens = 512;
        input.context = 0;
        const double prefill = Run(1, dp, true, input).total_us;
        EXPECT_TRUE(prefill > decode / 2 && prefill < 1e8) << name << " " << device << " " << dp;
      }
    }
  }
}

TEST_F(Step, WidthPaysInTheMiddleOfTheCurveAndNotAtItsEnd) {
  device_ = *LoadDevice("gb200");
  model_.expert_weight_bytes = 0.5625;
  model_.weight_bytes = 2;
  StepInput input = Decode(1, 1500);
  input.kv_element_bytes = 1;
  input.imbalance = {0.57, {}, true};
  const auto rate = [&](int ep, double tpot_ms) {
    Run(1, ep, true, input);
    return TokensPerSecPerGpu(model_, layout_, device_, input, tpot_ms).tokens_per_s_gpu;
  };
  const double tight = rate(32, 30) / rate(8, 30);
  const double loose = rate(32, 60) / rate(8, 60);
  EXPECT_GT(tight, 1.1);
  EXPECT_LT(loose, tight);
  EXPECT_LT(loose, 1.05);
  EXPECT_EQ(rate(8, 1), 0);
}

TEST_F(Step, TakesMicroseconds) {
  Run(1, 64, true, Decode(64));  // tables and loads are made once
  const auto start = std::chrono::steady_clock::now();
  constexpr int kSteps = 1000;
  double sum = 0;
  for (int i = 0; i < kSteps; ++i) {
    sum += EstimateStep(model_, layout_, device_, Decode(64, 1000 + i)).total_us;
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  EXPECT_GT(sum, 0);
  RecordProperty("us_per_step", std::to_string(took.count() / kSteps));
  EXPECT_LT(took.count() / kSteps, 1000);  // 20 in a release build; sanitizers are slow
}

}  // namespace
}  // namespace moebius::plan
