#include "plan/search.h"

#include <gtest/gtest.h>

#include <set>

#include "plan/search_test_util.h"

namespace moebius::plan {
namespace {

Estimate At(const PlanInput& input, const layout::ParallelConfig& config, int64_t concurrency) {
  return EstimateLayout(input, SettleLayout(input, config, concurrency), concurrency);
}

TEST(Search, EveryProductOnceLegalOrWithItsReason) {
  const ConfigSet set = EnumerateConfigs(TestInput(), 8);
  std::set<std::string> names;
  for (const layout::ParallelConfig& config : set.legal) {
    EXPECT_EQ(config.num_gpus(), 8);
    EXPECT_TRUE(names.insert(layout::ConfigName(config)).second);
  }
  for (const char* name : {"TP8", "TP8+EP", "DP8", "DP8+EP"})
    EXPECT_TRUE(names.count(name)) << name;
  for (const IllegalLayout& illegal : set.illegal) {
    EXPECT_FALSE(illegal.reason.empty());
    EXPECT_TRUE(names.insert(layout::ConfigName(illegal.config)).second);
  }
  // 4 exponents of 2 in three sizes are 10 products; EP has an effect in all but PP8.
  EXPECT_EQ(names.size(), 19u);
}

TEST(Search, HeadsThatTpDoesNotDivideAreTurnedDown) {
  const ConfigSet set = EnumerateConfigs(TestInput(), 3);
  bool found = false;
  for (const IllegalLayout& illegal : set.illegal) {
    found |= illegal.config.tensor_parallel_size == 3 &&
             illegal.reason.find(
                 "Total number of attention heads (128) must be divisible by "
                 "tensor parallel size (3)") != std::string::npos;
  }
  EXPECT_TRUE(found);
}

TEST(Search, CostSettlesWhatIsLeftToIt) {
  const PlanInput input = TestInput();
  for (const bool ep : {false, true}) {
    const layout::ParallelConfig config = TestConfig(1, 8, 1, ep);
    const Estimate chosen = At(input, config, 64);
    EXPECT_NE(chosen.layout.config.lm_head, layout::PartPlacement::kAuto);
    EXPECT_NE(chosen.layout.config.dense_ffn, layout::PartPlacement::kAuto);
    EXPECT_EQ(chosen.layout.config.all2all_backend == layout::ExchangeBackend::kAuto, !ep);
    for (const auto head : {layout::PartPlacement::kTp, layout::PartPlacement::kDp}) {
      layout::ParallelConfig other = chosen.layout.config;
      other.lm_head = head;
      EXPECT_LE(At(input, other, 64).output_tokens_per_s, chosen.output_tokens_per_s * 1.0001);
    }
  }
  EXPECT_EQ(At(input, TestConfig(8, 1, 1, true), 64).layout.config.lm_head,
            layout::PartPlacement::kAuto);
}

TEST(Search, ALoadLargerThanTheCacheIsTurnedDownWithBothNumbers) {
  const PlanInput input = TestInput();
  const Estimate small = At(input, TestConfig(8, 1, 1, false), 16);
  ASSERT_TRUE(small.ok()) << small.reason;
  const int64_t holds = small.memory.distinct_kv_tokens / (input.isl + input.osl);
  const Estimate large = At(input, TestConfig(8, 1, 1, false), holds * 2);
  EXPECT_EQ(large.rejected_by, RejectedBy::kCapacity);
  EXPECT_NE(large.reason.find(std::to_string(large.memory.distinct_kv_tokens)), std::string::npos);
  EXPECT_NE(large.reason.find(std::to_string(holds * 2 * 3000)), std::string::npos);

  const Estimate none = At(input, TestConfig(1, 1, 1, false), 1);
  EXPECT_EQ(none.rejected_by, RejectedBy::kWeights);
}

TEST(Search, TimesObeyLittlesLaw) {
  const PlanInput input = TestInput();
  for (const int64_t concurrency : {1, 16, 256}) {
    const Estimate e = At(input, TestConfig(1, 8, 1, true), concurrency);
    const double request_ms =
        static_cast<double>(concurrency * input.osl) / e.output_tokens_per_s * 1e3;
    EXPECT_NEAR(e.ttft_ms + static_cast<double>(input.osl - 1) * e.tpot_ms, request_ms,
                0.01 * request_ms);
    EXPECT_GE(e.tpot_ms, e.decode_step_ms);
    EXPECT_GT(e.ttft_ms, 0);
    EXPECT_NEAR(e.tokens_per_s_user * e.tpot_ms, 1e3, 1e-6);
    EXPECT_NEAR(e.tokens_per_s_gpu * 8, e.output_tokens_per_s, 1e-6 * e.output_tokens_per_s);
  }
}

TEST(Search, MoreRequestsTakeLongerAndGiveMore) {
  const PlanInput input = TestInput();
  Estimate before = At(input, TestConfig(1, 8, 1, true), 8);
  for (int64_t concurrency = 16; concurrency <= 512; concurrency *= 2) {
    Estimate now = At(input, TestConfig(1, 8, 1, true), concurrency);
    EXPECT_GE(now.tpot_ms, before.tpot_ms) << concurrency;
    EXPECT_GE(now.output_tokens_per_s, before.output_tokens_per_s) << concurrency;
    before = std::move(now);
  }
}

TEST(Search, ALongPromptRunsInChunks) {
  PlanInput input = TestInput();
  input.isl = 32768;
  const Estimate e = At(input, TestConfig(1, 8, 1, true), 8);
  EXPECT_EQ(e.prefill_chunks, 4);
  EXPECT_NEAR(e.prefill_ms, e.prefill.total_us / 1e3 * 4, 1e-6 * e.prefill_ms);
}

TEST(Search, DollarsAreThePriceOverTheTokens) {
  PlanInput input = TestInput();
  input.gpu_hour_price = 2;
  const Estimate e = At(input, TestConfig(1, 8, 1, true), 64);
  // $16 an hour for output_tokens_per_s * 3600 tokens.
  EXPECT_NEAR(e.dollars_per_million, 16 / (e.output_tokens_per_s * 3600) * 1e6, 1e-9);
}

TEST(Search, TheRoutersSkewIsTheModelsUnlessGiven) {
  PlanInput input = TestInput();
  SetSkew(std::nullopt, input);
  EXPECT_TRUE(input.zipf_is_default);
  EXPECT_EQ(input.imbalance.zipf, 0.57);
  EXPECT_FALSE(DefaultSkewOf(input.model.numbers).assumed);
  SetSkew(0, input);
  EXPECT_FALSE(input.zipf_is_default);
  EXPECT_EQ(input.imbalance.zipf, 0);
  input.model.numbers.hidden_size = 5120;
  EXPECT_TRUE(DefaultSkewOf(input.model.numbers).assumed);
  input.imbalance.counts.assign(256, 1);
  SetSkew(std::nullopt, input);
  EXPECT_FALSE(input.zipf_is_default);
}

TEST(Search, CopiesShareTheRequestsAndAddUp) {
  const PlanInput input = TestInput();
  const std::vector<Candidate> candidates = EnumerateReplicas(input, 32);
  std::set<std::string> names;
  for (const Candidate& candidate : candidates) {
    EXPECT_EQ(candidate.gpus(), 32);
    EXPECT_GT(candidate.replicas, 1);
    EXPECT_TRUE(names.insert(candidate.name()).second);
  }
  for (const char* name : {"4 x TP8", "4 x TP8+EP", "2 x DP16+EP"}) {
    EXPECT_TRUE(names.count(name)) << name;
  }
  EXPECT_FALSE(names.count("16 x TP2"));  // 671 GB on two GPUs

  const layout::ParallelLayout layout = SettleLayout(input, TestConfig(8, 1, 1, true), 16);
  const Estimate one = EstimateLayout(input, layout, 16);
  const Estimate four = EstimateLayout(input, layout, 64, 4);
  EXPECT_EQ(four.name(), "4 x TP8+EP");
  EXPECT_EQ(four.gpus(), 32);
  EXPECT_EQ(four.requests_per_rank, one.requests_per_rank);
  EXPECT_DOUBLE_EQ(four.tpot_ms, one.tpot_ms);
  EXPECT_DOUBLE_EQ(four.output_tokens_per_s, 4 * one.output_tokens_per_s);
  EXPECT_DOUBLE_EQ(four.tokens_per_s_gpu, one.tokens_per_s_gpu);
  EXPECT_EQ(four.memory.distinct_kv_tokens, 4 * one.memory.distinct_kv_tokens);
}

TEST(Search, BalancingAndOverlapAreTakenWhereTheyPay) {
  PlanInput input = TestInput();
  input.isl = 1000;
  input.osl = 200;
  SetSkew(std::nullopt, input);
  const layout::ParallelConfig wide = TestConfig(1, 64, 1, true);
  EXPECT_FALSE(SettleLayout(input, wide, 64 * 256).config.enable_eplb);
  EXPECT_FALSE(SettleLayout(input, wide, 64 * 256).config.enable_dbo);
  const double before = At(input, wide, 64 * 256).tokens_per_s_gpu;
  input.settle_eplb = input.settle_dbo = true;
  const layout::ParallelConfig large = SettleLayout(input, wide, 64 * 256).config;
  EXPECT_TRUE(large.enable_eplb);
  EXPECT_TRUE(large.enable_dbo);
  EXPECT_EQ((256 + large.num_redundant_experts) % 64, 0);
  EXPECT_GT(At(input, wide, 64 * 256).tokens_per_s_gpu, before * 1.05);
  EXPECT_FALSE(SettleLayout(input, wide, 64).config.enable_dbo);
  const layout::ParallelConfig odd =
      SettleLayout(input, TestConfig(1, 72, 1, true), 72 * 64).config;
  EXPECT_TRUE(odd.enable_eplb);
  EXPECT_EQ(odd.num_redundant_experts, 32);
  // Nothing to balance.
  input.imbalance.zipf = 0;
  EXPECT_FALSE(SettleLayout(input, TestConfig(1, 8, 1, true), 64).config.enable_eplb);
}

TEST(Search, ExpertsOfAGpu) {
  const PlanInput input = TestInput();
  const layout::ParallelLayout wide =
      layout::MakeLayout(TestConfig(1, 64, 1, true), input.model.numbers);
  EXPECT_EQ(ExpertsPerGpuLayer(wide), 4);
  EXPECT_EQ(ExpertsPerGpu(input.model, wide), 232);
}

TEST(Search, TheWeakestBasisCountsFromATenth) {
  StepTime step;
  step.ops = {{.name = "a", .us = 95, .basis = Basis::kMeasured},
              {.name = "b", .us = 5, .basis = Basis::kRoofline}};
  EXPECT_EQ(WeakestBasis(step), Basis::kMeasured);
  step.ops[1].us = 20;
  EXPECT_EQ(WeakestBasis(step), Basis::kRoofline);
  step.ops[1].basis = Basis::kInterpolated;
  EXPECT_EQ(WeakestBasis(step), Basis::kInterpolated);
}

}  // namespace
}  // namespace moebius::plan
