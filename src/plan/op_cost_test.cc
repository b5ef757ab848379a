#include "plan/op_cost.h"

#include <gtest/gtest.h>

#include "plan/exchange_cost.h"
#include "plan/imbalance.h"
#include "plan/measured.h"

namespace moebius::plan {
namespace {

Device Get(const char* name) { return *LoadDevice(name); }

TEST(OpCost, MeasuredShapesGiveTheMeasuredTime) {
  const OpCost big = Gemm(Get("h200"), 8192, 8192, 8192, 2);
  EXPECT_EQ(big.basis, Basis::kMeasured);
  EXPECT_NEAR(big.flops / big.us / 1e6, 782, 1);

  ExchangeShape s;
  s.ranks = 32;
  s.gpus_per_node = 72;
  s.tokens = 256;
  s.num_slots = 256;
  s.top_k = 8;
  s.hidden = 7168;
  EXPECT_NEAR(Dispatch(Get("gb200"), s).us, 61.5, 0.01);
  EXPECT_NEAR(Combine(Get("gb200"), s).us, 59.7, 0.01);
  EXPECT_EQ(Dispatch(Get("gb200"), s).basis, Basis::kMeasured);

  const OpCost reduce = AllReduce(Get("h200"), 2, 8, 128 * 7168 * 2.0);
  EXPECT_NEAR(reduce.us, 29.2, 0.01);
  EXPECT_EQ(reduce.basis, Basis::kMeasured);
}

TEST(OpCost, EveryMeasuredExpertsRowComesBack) {
  for (const ExpertsRow& row : MeasuredExperts()) {
    Imbalance imbalance;
    imbalance.zipf = kDeepSeekZipf;
    imbalance.balanced = true;
    const ExpertLoads loads(imbalance, 256, 8,
                            std::vector<int64_t>(static_cast<size_t>(row.ep), 256 / row.ep));
    const int64_t tokens = row.tokens_per_rank * row.ep;
    ExpertsShape e;
    e.slots = 256.0 / row.ep;
    e.slots_hit = loads.SlotsHit(tokens, loads.BusiestRank(tokens));
    e.rows = static_cast<double>(row.tokens_per_rank * 8) * loads.BusiestRank(tokens);
    e.hidden = 7168;
    e.width = 2048;
    e.weight_bytes = row.weight_bytes;
    const OpCost cost = Experts(Get(row.device), e);
    EXPECT_NEAR(cost.us / row.us, 1, 0.01)
        << row.device << " EP" << row.ep << " at " << row.tokens_per_rank;
    EXPECT_EQ(cost.basis, Basis::kMeasured);
  }
}

TEST(OpCost, TheBasisSaysWhatIsKnown) {
  EXPECT_EQ(Gemm(Get("h200"), 300, 5000, 3000, 1).basis, Basis::kInterpolated);
  EXPECT_EQ(Gemm(Get("h100"), 8192, 8192, 8192, 2).basis, Basis::kInterpolated);
  EXPECT_EQ(Gemm(Get("mi300x"), 8192, 8192, 8192, 2).basis, Basis::kRoofline);
}

TEST(OpCost, FormulasOfTheDeepSeekLayer) {
  AttentionShape a;
  a.requests = 3;
  a.cached = 999;
  a.heads = 128;
  a.head_dim = 192;
  a.kv_lora_rank = 512;
  a.rope_dim = 64;
  const OpCost decode = MlaDecode(Get("h200"), a);
  EXPECT_DOUBLE_EQ(decode.flops, 2.0 * 3 * 128 * 1088 * 1000);
  EXPECT_DOUBLE_EQ(decode.bytes, 3.0 * 1000 * 576 * 2 + 3.0 * 128 * 1088 * 2);
  a.new_tokens = 1000;
  a.cached = 500;
  EXPECT_DOUBLE_EQ(ContextAttention(Get("h200"), a).flops,
                   3.0 * 128 * 320 * (1500.0 * 1500 - 500.0 * 500));
  a.window = 100;
  EXPECT_DOUBLE_EQ(ContextAttention(Get("h200"), a).flops, 2.0 * 3 * 128 * 320 * 1000 * 100);
}

TEST(OpCost, WeightsMeetTheProductsTheDeviceHas) {
  const Device h200 = Get("h200");
  EXPECT_EQ(PeakFlops(h200, 0.53), h200.fp8_flops);
  EXPECT_EQ(PeakFlops(Get("gb200"), 0.53), Get("gb200").fp4_flops);
  EXPECT_EQ(PeakFlops(h200, 2), h200.bf16_flops);
}

// Remote copies of a token: the closed form of distinct ranks.
TEST(ExchangeCost, DistinctRanks) {
  const auto remote = [](double experts, int64_t k, double ep) {
    return DistinctGroups(experts, k, ep) * (ep - 1) / ep;
  };
  EXPECT_NEAR(remote(256, 8, 8), 4.63, 0.005);
  EXPECT_NEAR(remote(256, 8, 64), 7.56, 0.005);
  EXPECT_NEAR(remote(384, 8, 32), 7.01, 0.005);
  EXPECT_NEAR(remote(896, 16, 16), 9.71, 0.005);
  EXPECT_NEAR(remote(128, 1, 8), 0.875, 1e-9);
  EXPECT_NEAR(DistinctGroups(256, 8, 4), 3.62, 0.01);
}

TEST(ExchangeCost, WideGroupsPayForTheSlowerLink) {
  ExchangeShape s;
  s.tokens = 512;
  s.num_slots = 256;
  s.top_k = 8;
  s.hidden = 7168;
  const Device device = Get("mi300x");
  s.ranks = 8;
  const OpCost inside = Dispatch(device, s);
  s.ranks = 16;
  const OpCost across = Dispatch(device, s);
  EXPECT_GT(across.us, 2 * inside.us);
  s.by_node = true;  // at most one copy to the other node
  EXPECT_LT(Dispatch(device, s).us, across.us);
}

}  // namespace
}  // namespace moebius::plan
