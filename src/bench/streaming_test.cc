#include "bench/streaming.h"

#include <gtest/gtest.h>

#include <vector>

namespace moebius::bench {
namespace {

TEST(Streaming, ExpertsReachedByABatch) {
  EXPECT_DOUBLE_EQ(ExpectedExperts(64, 8, 1), 8);
  EXPECT_NEAR(ExpectedExperts(64, 8, 2), 15, 1e-9);  // 8 + 8 * (56 / 64)
  EXPECT_NEAR(ExpectedExperts(64, 8, 1000), 64, 1e-6);
  EXPECT_DOUBLE_EQ(ExpectedExperts(4, 4, 1), 4);
  EXPECT_DOUBLE_EQ(ExpectedExperts(0, 0, 5), 0);
}

TEST(Streaming, BytesOfTheParts) {
  model::Inspection inspection;
  inspection.config.layers.resize(3);
  inspection.config.layers[1].moe = inspection.config.layers[2].moe = true;
  inspection.config.moe.num_experts = 8;
  inspection.config.moe.top_k = 2;
  inspection.config.num_layers = 3;
  inspection.config.num_mtp_layers = 1;
  inspection.kv_bytes_per_token = 32;
  inspection.parts = {{model::Part::kEmbedding, 1, 0, 500},
                      {model::Part::kAttention, 1, 0, 100},
                      {model::Part::kRoutedExperts, 1, 0, 1600},
                      {model::Part::kHead, 1, 0, 50},
                      {model::Part::kMtp, 1, 0, 9999}};
  const ModelBytes bytes = BytesOf(inspection);
  EXPECT_DOUBLE_EQ(bytes.every_step, 150);
  EXPECT_DOUBLE_EQ(bytes.one_expert, 100);
  EXPECT_DOUBLE_EQ(bytes.kv_per_token, 24);
  inspection.config.tie_embeddings = true;
  EXPECT_DOUBLE_EQ(BytesOf(inspection).every_step, 650);
}

TEST(Streaming, ExpertsReachedByWhatWasCounted) {
  const std::vector<int64_t> even(64, 100);
  EXPECT_NEAR(ExpectedExperts(even, 8, 2), ExpectedExperts(64, 8, 2), 1e-9);
  // Every token takes 0 and 1; a third one never.
  EXPECT_NEAR(ExpectedExperts(std::vector<int64_t>{50, 50, 0}, 2, 8), 2, 1e-12);
  // p = 1, 1/2, 1/2.
  EXPECT_NEAR(ExpectedExperts(std::vector<int64_t>{40, 20, 20}, 2, 2), 1 + 0.75 + 0.75, 1e-12);
  // Skewed loads reach fewer than even ones.
  EXPECT_LT(ExpectedExperts(std::vector<int64_t>{70, 10, 10, 10}, 1, 4), ExpectedExperts(4, 1, 4));
}

TEST(Streaming, BytesOfAStep) {
  ModelBytes model;
  model.every_step = 1000;
  model.one_expert = 10;
  model.num_moe_layers = 3;
  model.num_experts = 8;
  model.top_k = 2;
  model.kv_per_token = 5;
  EXPECT_DOUBLE_EQ(BytesPerStep(model, {}, 1, 7), 1000 + 2 * 10 * 3 + 7 * 5);
  EXPECT_DOUBLE_EQ(BytesPerStep(model, {}, 2, 14), 1000 + 3.5 * 10 * 3 + 14 * 5);
  // One layer sends everything to two experts, one was not counted.
  moe::ExpertStats load(2, 8);
  load.Count(0, std::vector<int32_t>{3, 5, 3, 5});
  load.Count(1, std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7});
  EXPECT_DOUBLE_EQ(ExpertsPerStep(model, load, 2), 2 + 3.5 + 3.5);
}

TEST(Streaming, MoreThanTheWholeBandwidthIsExplained) {
  EXPECT_EQ(ExplainShare(0.99, 1e6, 32e6), "");
  EXPECT_NE(ExplainShare(1.01, 1e6, 32e6).find("fits the caches (32.0 MB)"), std::string::npos);
  EXPECT_NE(ExplainShare(1.01, 64e6, 32e6).find("measured again"), std::string::npos);
}

}  // namespace
}  // namespace moebius::bench
