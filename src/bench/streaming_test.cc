#include "bench/streaming.h"

#include <gtest/gtest.h>

namespace moebius::bench {
namespace {

TEST(Streaming, ExpertsReachedByABatch) {
  EXPECT_DOUBLE_EQ(ExpectedExperts(64, 8, 1), 8);
  EXPECT_NEAR(ExpectedExperts(64, 8, 2), 15, 1e-9);  // 8 + 8 * (56 / 64)
  EXPECT_NEAR(ExpectedExperts(64, 8, 1000), 64, 1e-6);
  EXPECT_DOUBLE_EQ(ExpectedExperts(4, 4, 1), 4);
  EXPECT_DOUBLE_EQ(ExpectedExperts(0, 0, 5), 0);
}

TEST(Streaming, BytesOfAStep) {
  ModelBytes model;
  model.every_step = 1000;
  model.one_expert = 10;
  model.num_moe_layers = 3;
  model.num_experts = 8;
  model.top_k = 2;
  model.kv_per_token = 5;
  EXPECT_DOUBLE_EQ(BytesPerStep(model, 1, 7), 1000 + 2 * 10 * 3 + 7 * 5);
  EXPECT_DOUBLE_EQ(BytesPerStep(model, 2, 7), 1000 + 3.5 * 10 * 3 + 2 * 7 * 5);
}

}  // namespace
}  // namespace moebius::bench
