#include <gtest/gtest.h>

#include "plan/memory.h"

namespace moebius::plan {
namespace {

layout::ParallelLayout Plan(const ModelShape& model, int tp, int dp, bool ep,
                            const char* backend = "auto") {
  layout::ParallelConfig config;
  config.tensor_parallel_size = tp;
  config.data_parallel_size = dp;
  config.enable_expert_parallel = ep;
  EXPECT_TRUE(layout::SetBackend(backend, config));
  return MakeLayout(config, model.numbers);
}

ModelShape Deepseek() {
  auto shape = LoadModelShape("DeepSeek-V3");
  EXPECT_TRUE(shape);
  return shape ? *shape : ModelShape();
}

// Experts, top-k, then remote copies and gather-to-all-to-all ratio at EP 8, 16, 32, 64.
TEST(RemoteCopies, Table) {
  struct Row {
    int64_t experts, top_k;
    double copies[4];
    double ratios[4];
  };
  const Row rows[] = {{256, 8, {4.63, 6.12, 7.04, 7.56}, {1.5, 2.5, 4.4, 8.3}},
                      {384, 8, {4.62, 6.09, 7.01, 7.52}, {1.5, 2.5, 4.4, 8.4}},
                      {896, 16, {6.19, 9.71, 12.4, 14.1}, {1.1, 1.5, 2.5, 4.5}},
                      {128, 1, {0.88, 0.94, 0.97, 0.98}, {8, 16, 32, 64}}};
  for (const Row& row : rows) {
    for (int i = 0; i < 4; ++i) {
      const int ep = 8 << i;
      const double copies = RemoteCopies(row.experts, row.top_k, ep);
      EXPECT_NEAR(copies, row.copies[i], row.copies[i] < 10 ? 0.006 : 0.06)
          << row.experts << " EP" << ep;
      EXPECT_NEAR((ep - 1) / copies, row.ratios[i], 0.06) << row.experts << " EP" << ep;
    }
  }
}

TEST(RemoteCopies, Ends) {
  EXPECT_EQ(RemoteCopies(256, 8, 1), 0);
  EXPECT_NEAR(RemoteCopies(8, 8, 8), 7, 1e-12);  // all experts: all other ranks
  EXPECT_NEAR(RemoteCopies(10, 10, 4), 3, 1e-12);
  EXPECT_NEAR(RemoteCopies(10, 1, 4), 0.75, 1e-12);
}

TEST(Traffic, AllToAllSendsEachTokenOnceARank) {
  const ModelShape model = Deepseek();
  const Traffic traffic = PlanTraffic(model, Plan(model, 1, 8, true), 128, 1);
  EXPECT_NEAR(traffic.remote_copies, 4.63, 0.01);
  EXPECT_NEAR(traffic.moe_dispatch, 4.63 * 128 * 7168, 0.002 * traffic.moe_dispatch);
  EXPECT_NEAR(traffic.moe_combine, 2 * traffic.moe_dispatch, 1);
  EXPECT_EQ(traffic.attention_all_reduce, 0);
  EXPECT_EQ(traffic.moe_all_reduce, 0);
  EXPECT_EQ(traffic.per_layer(), traffic.moe_dispatch + traffic.moe_combine);
}

TEST(Traffic, GatherSendsToAll) {
  const ModelShape model = Deepseek();
  const Traffic traffic =
      PlanTraffic(model, Plan(model, 1, 8, true, "allgather_reducescatter"), 128, 2);
  EXPECT_EQ(traffic.moe_dispatch, 7 * 128 * 7168 * 2);
  EXPECT_EQ(traffic.moe_combine, 7 * 128 * 7168 * 2);
  EXPECT_EQ(traffic.remote_copies, 0);
  // Without EP the same collectives carry the same bytes.
  const Traffic thin = PlanTraffic(model, Plan(model, 1, 8, false), 128, 2);
  EXPECT_EQ(thin.per_layer(), traffic.per_layer());
}

TEST(Traffic, TpReducesTwiceALayerWithAndWithoutEp) {
  const ModelShape model = Deepseek();
  for (const bool ep : {false, true}) {
    const Traffic traffic = PlanTraffic(model, Plan(model, 8, 1, ep), 64, 1);
    EXPECT_EQ(traffic.attention_all_reduce, 2.0 * 7 / 8 * 64 * 7168 * 2);
    EXPECT_EQ(traffic.moe_all_reduce, traffic.attention_all_reduce);
    EXPECT_EQ(traffic.moe_dispatch, 0);
  }
}

TEST(Traffic, CutTokensAreSentOnceAndGathered) {
  const ModelShape model = Deepseek();
  const Traffic traffic = PlanTraffic(model, Plan(model, 4, 2, true), 64, 1);
  EXPECT_NEAR(traffic.moe_dispatch, RemoteCopies(256, 8, 8) * 16 * 7168, 1);
  EXPECT_EQ(traffic.token_gather, 3 * 16 * 7168 * 2);
  EXPECT_EQ(traffic.moe_all_reduce, 0);
}

TEST(Traffic, TpAndDpWithoutEpGatherThenReduce) {
  const ModelShape model = Deepseek();
  const Traffic traffic = PlanTraffic(model, Plan(model, 4, 2, false), 64, 2);
  EXPECT_EQ(traffic.moe_dispatch, 64 * 7168 * 2);
  EXPECT_EQ(traffic.moe_all_reduce, 2.0 * 3 / 4 * 64 * 7168 * 2);
}

}  // namespace
}  // namespace moebius::plan
