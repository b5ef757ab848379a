#include "plan/memory.h"

#include <gtest/gtest.h>

#include <cmath>

#include "layout/rules.h"
#include "plan/playbook_memory.h"

namespace moebius::plan {
namespace {

using layout::ParallelConfig;
using layout::ParallelLayout;

constexpr double kH200 = 141e9;

ModelShape Known(const std::string& name) {
  auto shape = LoadModelShape(name);
  EXPECT_TRUE(shape) << shape.error().message();
  return shape ? *shape : ModelShape();
}

// One byte a parameter, as the reference counts DeepSeek-V3.
ModelShape OneByteDeepseek() {
  ModelShape model = Known("DeepSeek-V3");
  model.weight_bytes = model.expert_weight_bytes = model.other_bytes = 1;
  return model;
}

ParallelConfig Sizes(int tp, int dp, int pp, bool ep) {
  ParallelConfig config;
  config.tensor_parallel_size = tp;
  config.data_parallel_size = dp;
  config.pipeline_parallel_size = pp;
  config.enable_expert_parallel = ep;
  return config;
}

MemoryUse Use(const ModelShape& model, const ParallelConfig& config, MemoryInput input = {}) {
  if (input.hbm_bytes == 0) input.hbm_bytes = kH200;
  return PlanMemory(model, MakeLayout(config, model.numbers), input);
}

void ExpectWithin(double value, double expected, double share, const std::string& what) {
  EXPECT_NEAR(value, expected, share * expected) << what;
}

TEST(Assertions, A1_A2_A4_KvCopiesOfLatentKv) {
  const ModelShape model = Known("DeepSeek-V3");
  EXPECT_EQ(Use(model, Sizes(8, 1, 1, true)).kv_copies, 8);
  EXPECT_EQ(Use(model, Sizes(1, 8, 1, true)).kv_copies, 1);
  EXPECT_EQ(Use(model, Sizes(4, 2, 1, true)).kv_copies, 4);
}

TEST(Assertions, A3_A5_InactiveEpChangesNothing) {
  const ModelShape model = Known("DeepSeek-V3");
  for (const int pp : {1, 2, 8}) {
    const MemoryUse with = Use(model, Sizes(1, 1, pp, true));
    const MemoryUse without = Use(model, Sizes(1, 1, pp, false));
    EXPECT_EQ(with.total_without_kv(), without.total_without_kv()) << pp;
    EXPECT_EQ(with.exchange_buffers, 0);
  }
  // EP4 in each of two stages: a quarter of the experts of half of the layers.
  const MemoryUse use = Use(OneByteDeepseek(), Sizes(4, 1, 2, true));
  ExpectWithin(use.routed_experts, 653.9e9 / 8, 0.04, "stage of 30 MoE layers");
}

TEST(Assertions, A6_HeadsMessage) {
  ModelShape model = Known("DeepSeek-V3");
  model.numbers.num_heads = 64;
  const auto findings = layout::CheckRules(Sizes(3, 1, 1, false), model.numbers);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings.front().message,
            "Total number of attention heads (64) must be divisible by tensor parallel size (3)");
}

TEST(Assertions, A7_KvOfDpDoesNotDependOnEp) {
  const ModelShape model = Known("DeepSeek-V3");
  const MemoryUse with = Use(model, Sizes(1, 8, 1, true));
  const MemoryUse without = Use(model, Sizes(1, 8, 1, false));
  EXPECT_EQ(with.kv_bytes_per_token, without.kv_bytes_per_token);
  EXPECT_EQ(with.kv_copies, without.kv_copies);
  EXPECT_EQ(with.distinct_kv_tokens, 8 * with.kv_tokens_per_rank);
  EXPECT_EQ(without.distinct_kv_tokens, 8 * without.kv_tokens_per_rank);
  for (const char* name : {"DP8", "DP8+EP"}) {
    for (const PlaybookRow& row : PlaybookTable()) {
      if (std::string(row.layout) != name) continue;
      EXPECT_NEAR(RecomputeRow(row, model).kv, 64 * 70272 / 1e9, 1e-9);
    }
  }
}

TEST(Assertions, A8_PartsAddToTheTotal) {
  for (const char* name : {"DeepSeek-V3", "Qwen3-235B-A22B", "gpt-oss-120b"}) {
    const ModelShape model = Known(name);
    for (const ParallelConfig& config : layout::LegalConfigs(8, 8, model.numbers)) {
      const MemoryUse use = Use(model, config);
      const double sum = use.attention + use.dense_ffn + use.routed_experts + use.redundant_slots +
                         use.shared_experts + use.embedding_and_head + use.router_and_norms +
                         use.exchange_buffers + use.activations;
      EXPECT_NEAR(sum, use.total_without_kv(), 1) << name << " " << ConfigName(config);
      EXPECT_NEAR(use.kv_budget + sum, 0.9 * kH200, 1) << name << " " << ConfigName(config);
    }
  }
}

// Summed over the ranks of the deployment, what is cut or split is the model, once.
TEST(Assertions, A8_CutPartsOfAllRanksAreTheModel) {
  const ModelShape model = OneByteDeepseek();
  for (const ParallelConfig& config : layout::LegalConfigs(8, 8, model.numbers)) {
    if (config.pipeline_parallel_size > 1) continue;
    const MemoryUse use = Use(model, config);
    ExpectWithin(8 * use.routed_experts, 653.9e9, 0.001, ConfigName(config));
  }
}

TEST(Assertions, A9_SlotsOfUnevenExperts) {
  ModelShape model = Known("DeepSeek-V3");
  model.numbers.num_experts = 10;
  const ParallelLayout layout = MakeLayout(Sizes(1, 4, 1, true), model.numbers);
  EXPECT_EQ(layout.slots_per_rank, (std::vector<int64_t>{3, 3, 2, 2}));
  // The fullest rank counts.
  const MemoryUse use = Use(model, Sizes(1, 4, 1, true));
  EXPECT_NEAR(use.routed_experts,
              3.0 * 58 * static_cast<double>(model.ExpertParams()) * model.expert_weight_bytes, 1);
}

TEST(Assertions, A10_KvBytesPerTokenOfDeepseekV3) {
  const ModelShape model = Known("DeepSeek-V3");
  MemoryInput input;
  for (const int tp : {1, 8}) {
    input.kv_element_bytes = 1;
    EXPECT_EQ(Use(model, Sizes(tp, 1, 1, false), input).kv_bytes_per_token, 35136);
    input.kv_element_bytes = 2;
    EXPECT_EQ(Use(model, Sizes(tp, 1, 1, false), input).kv_bytes_per_token, 70272);
  }
}

// The true parts of DeepSeek-V3 on 8 GPUs, GB: (non-MoE, routed, shared), total without KV.
TEST(Memory, TruePartsOfDeepseekV3Within2Percent) {
  struct Row {
    const char* layout;
    double non_moe, routed, shared, total;
  };
  const std::vector<Row> rows = {{"TP8", 2.72, 81.74, 0.32, 84.8},
                                 {"TP8+EP", 2.72, 81.74, 0.32, 84.8},
                                 {"DP8", 14.56, 81.74, 2.55, 98.9},
                                 {"DP8+EP", 14.56, 81.74, 2.55, 98.9}};
  const ModelShape model = Known("deepseek-ai/DeepSeek-R1");
  ASSERT_EQ(PlaybookTable().size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const RecomputedRow row = RecomputeRow(PlaybookTable()[i], model);
    ASSERT_EQ(row.layout, rows[i].layout);
    ExpectWithin(row.non_moe, rows[i].non_moe, 0.02, row.layout + " non-MoE");
    ExpectWithin(row.routed, rows[i].routed, 0.02, row.layout + " routed");
    ExpectWithin(row.shared, rows[i].shared, 0.02, row.layout + " shared");
    ExpectWithin(row.Total(), rows[i].total, 0.02, row.layout + " total");
  }
}

TEST(Memory, RedundantExperts) {
  const ModelShape model = OneByteDeepseek();
  ParallelConfig config = Sizes(1, 32, 1, true);
  config.enable_eplb = true;
  config.num_redundant_experts = 32;
  const MemoryUse use = Use(model, config);
  const double expert = static_cast<double>(model.ExpertParams());
  // One slot a rank more is 2.55 GB; 9 slots of a layer to stage; loads of 1000 steps.
  ExpectWithin(58 * expert, 2.55e9, 0.01, "a slot");
  const double window = 1000.0 * 58 * 288 * 4;
  ExpectWithin(window, 67e6, 0.01, "load window");
  EXPECT_NEAR(use.redundant_slots, 58 * expert + 9 * expert + window, 1);
  ExpectWithin(use.routed_experts, 8 * 58 * expert, 1e-9, "without redundant slots");
}

// Checked against reports of that kernel: 35.55 and 31.94 GiB.
TEST(Memory, LowLatencyBuffers) {
  constexpr double kGiB = 1 << 30;
  EXPECT_NEAR(LowLatencyBufferBytes(448, 2048, 5120) / kGiB, 35.55, 0.01);
  EXPECT_NEAR(LowLatencyBufferBytes(448, 1840, 5120) / kGiB, 31.94, 0.01);
  EXPECT_NEAR(LowLatencyBufferBytes(256, 128, 7168) / kGiB, 1.78, 0.01);
  EXPECT_NEAR(LowLatencyBufferBytes(256, 256, 7168) / kGiB, 3.55, 0.01);
  EXPECT_NEAR(LowLatencyBufferBytes(256, 1024, 7168) / kGiB, 14.2, 0.05);
  EXPECT_NEAR(LowLatencyBufferBytes(288, 256, 7168) / kGiB, 4.0, 0.01);
  const ModelShape model = Known("DeepSeek-V3");
  ParallelConfig config = Sizes(1, 8, 1, true);
  ASSERT_TRUE(layout::SetBackend("deepep_low_latency", config));
  MemoryInput input;
  input.max_decode_tokens = 256;
  EXPECT_NEAR(Use(model, config, input).exchange_buffers / kGiB, 3.55, 0.01);
  ASSERT_TRUE(layout::SetBackend("deepep_high_throughput", config));
  EXPECT_EQ(Use(model, config, input).exchange_buffers, kGiB);
}

// Our own exchange is cut into chunks, never below a decode step.
TEST(Memory, OwnExchangeChunks) {
  const ModelShape model = Known("DeepSeek-V3");
  for (const int ep : {4, 8, 16, 32, 64}) {
    ParallelConfig config = Sizes(1, ep, 1, true);
    const ParallelLayout layout = MakeLayout(config, model.numbers);
    MemoryInput input;
    input.max_batched_tokens = 8192;
    input.max_decode_tokens = 128;
    const ExchangeMemory memory = PlanExchangeMemory(model, layout, input);
    EXPECT_LE(memory.grouped, kGroupedBudget);
    EXPECT_GE(memory.chunk_tokens, 128);
    EXPECT_GE(memory.chunks * memory.chunk_tokens, 8192);
    EXPECT_LT((memory.chunks - 1) * memory.chunk_tokens, 8192);
    input.max_decode_tokens = 4096;
    EXPECT_GE(PlanExchangeMemory(model, layout, input).chunk_tokens, 4096);
    config.enable_dbo = true;
    const ExchangeMemory twice =
        PlanExchangeMemory(model, MakeLayout(config, model.numbers), input);
    EXPECT_NEAR(twice.regions, 2 * PlanExchangeMemory(model, layout, input).regions, 1);
  }
}

// The design's own figure: 4 ranks, 8192 tokens, hidden 7168, 8 experts: 1.9 GB of fp8 rows and 3.8
// GB of products where no budget cuts them (and the first product beside them).
TEST(Memory, GroupedRowsAtTheirWorst) {
  ModelShape model = Known("DeepSeek-V3");
  const ParallelLayout layout = MakeLayout(Sizes(1, 4, 1, true), model.numbers);
  MemoryInput input;
  input.max_batched_tokens = input.max_decode_tokens = 8192;
  const double rows = 4 * 8192 * 8;
  EXPECT_NEAR(rows * 7168 / 1e9, 1.9, 0.05);
  EXPECT_NEAR(PlanExchangeMemory(model, layout, input).grouped,
              rows * (7168 * (1 + 1.0 / 32) + 2 * 2048 * 2 + 7168 * 2), 1);
}

TEST(Memory, NothingIsExchangedWithoutAnExchange) {
  const ModelShape model = Known("DeepSeek-V3");
  for (const ParallelConfig& config : {Sizes(8, 1, 1, true), Sizes(1, 8, 1, false)}) {
    EXPECT_EQ(Use(model, config).exchange_buffers, 0) << ConfigName(config);
  }
}

TEST(Memory, WindowedLayersKeepTheirWindow) {
  const ModelShape model = Known("gpt-oss-120b");
  MemoryInput input;
  input.context = 12800;
  const double all = Use(model, Sizes(1, 1, 1, false)).kv_bytes_per_token;
  EXPECT_EQ(all, 36 * 2 * 8 * 64 * 2);
  EXPECT_NEAR(Use(model, Sizes(1, 1, 1, false), input).kv_bytes_per_token, all * (0.5 + 0.005), 1);
  input.context = 64;  // shorter than the window
  EXPECT_EQ(Use(model, Sizes(1, 1, 1, false), input).kv_bytes_per_token, all);
}

TEST(Memory, PipelineStagesShareLayers) {
  const ModelShape model = OneByteDeepseek();
  const MemoryUse whole = Use(model, Sizes(1, 1, 1, false));
  const MemoryUse stage = Use(model, Sizes(1, 1, 8, false));
  EXPECT_LT(stage.weights(), 0.15 * whole.weights());
  EXPECT_GT(stage.weights(), whole.weights() / 8);
  EXPECT_NEAR(stage.kv_bytes_per_token, 8 * 576 * 2, 1);
  EXPECT_LT(whole.kv_tokens_per_rank, 1);
  EXPECT_FALSE(whole.fits());
}

// Published for 8 H200: TP8 leaves 34 GB for KV, DP8+EP about 10 a GPU, DP16+EP 45.
TEST(Memory, KvThatPublishedH200LayoutsLeave) {
  const ModelShape model = Known("DeepSeek-V3");
  const auto left = [&](const ParallelConfig& config) {
    return Use(model, config).kv_budget / 1e9;
  };
  EXPECT_NEAR(left(Sizes(8, 1, 1, false)), 34, 5);
  EXPECT_NEAR(left(Sizes(1, 8, 1, true)), 10, 10);
  EXPECT_NEAR(left(Sizes(1, 16, 1, true)), 45, 15);
  // The figure to maximise: wider EP buys it, DP at one width far less than its count.
  const int64_t tp8 = Use(model, Sizes(8, 1, 1, false)).distinct_kv_tokens;
  const int64_t dp8 = Use(model, Sizes(1, 8, 1, true)).distinct_kv_tokens;
  const int64_t dp16 = Use(model, Sizes(1, 16, 1, true)).distinct_kv_tokens;
  EXPECT_GT(dp8, 2 * tp8);
  EXPECT_LT(dp8, 6 * tp8);
  EXPECT_GT(dp16, 4 * dp8);
}

TEST(Memory, KvHeadsBeyondTheirCountAreCopied) {
  const ModelShape model = Known("Qwen3-235B-A22B");
  EXPECT_EQ(Use(model, Sizes(8, 1, 1, true)).kv_copies, 2);
  EXPECT_EQ(Use(model, Sizes(8, 1, 1, true)).kv_bytes_per_token,
            Use(model, Sizes(4, 1, 1, true)).kv_bytes_per_token);
  // The projections of copied heads, too.
  const double q_and_o = 2.0 * 4096 * 64 * 128 / 8;
  const double k_and_v = 2.0 * 4096 * 128;
  EXPECT_NEAR(Use(model, Sizes(8, 1, 1, true)).attention, 94 * 2 * (q_and_o + k_and_v), 1);
}

TEST(Memory, DecodeContextParallelDividesCopiedKv) {
  const ModelShape model = Known("DeepSeek-V3");
  ParallelConfig config = Sizes(8, 1, 1, false);
  const MemoryUse copied = Use(model, config);
  config.decode_context_parallel_size = 8;
  const MemoryUse cut = Use(model, config);
  EXPECT_EQ(cut.kv_copies, 1);
  EXPECT_DOUBLE_EQ(cut.kv_bytes_per_token * 8, copied.kv_bytes_per_token);
  EXPECT_NEAR(static_cast<double>(cut.distinct_kv_tokens),
              8.0 * static_cast<double>(copied.distinct_kv_tokens), 8);
}

TEST(Playbook, PrintedPartsDoNotAddUpWhereTheSlipsSaySo) {
  const std::span<const PlaybookRow> rows = PlaybookTable();
  EXPECT_NEAR(rows[0].Sum(), 84.54, 0.001);
  EXPECT_NEAR(rows[1].Sum(), 84.54, 0.001);
  EXPECT_GT(rows[1].printed_total - rows[1].Sum(), 0.25);
  EXPECT_NEAR(rows[2].Sum(), 158.04, 0.001);
  EXPECT_NEAR(rows[3].Sum(), 157.165, 0.001);
  EXPECT_EQ(PlaybookSlips().size(), 8u);
  EXPECT_TRUE(PlaybookTableIsOf(Known("DeepSeek-R1")));
  EXPECT_FALSE(PlaybookTableIsOf(Known("Kimi-K2")));
}

}  // namespace
}  // namespace moebius::plan
