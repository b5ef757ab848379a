#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace moebius::model {
namespace {

void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-6 * std::fabs(expected[i])) << i;
  }
}

TEST(Rope, PlainAndLinear) {
  RopeConfig rope;
  ExpectNear(RopeFrequencies(rope, 4), {1.0, 0.01});
  rope.type = RopeType::kLinear;
  rope.factor = 4;
  ExpectNear(RopeFrequencies(rope, 4), {0.25, 0.0025});
  EXPECT_EQ(RopeAttentionFactor(rope), 1.0);
}

// Values of transformers 5.17 (_compute_yarn_parameters, _compute_llama3_parameters).
TEST(Rope, YarnAsTransformers) {
  RopeConfig rope;
  rope.type = RopeType::kYarn;
  rope.factor = 40;
  rope.original_max_position = 4096;
  const std::vector<float> frequencies = RopeFrequencies(rope, 64);
  ASSERT_EQ(frequencies.size(), 32u);
  EXPECT_NEAR(frequencies[0], 1.0, 1e-6);
  EXPECT_NEAR(frequencies[12], 0.0268793609, 1e-6 * 0.0268793609);
  EXPECT_NEAR(frequencies[16], 0.00550000044, 1e-6 * 0.00550000044);
  EXPECT_NEAR(frequencies[31], 3.33380353e-06, 1e-6 * 3.33380353e-06);
  EXPECT_NEAR(RopeAttentionFactor(rope), 0.1 * std::log(40.0) + 1, 1e-12);
  rope.mscale = 1;
  rope.mscale_all_dim = 1;
  EXPECT_EQ(RopeAttentionFactor(rope), 1.0);
  rope.mscale = 0.707;
  EXPECT_NEAR(RopeAttentionFactor(rope), (0.0707 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1),
              1e-12);
  // DeepSeek-V3: 192^-0.5 times the squared mscale.
  const double mscale = 0.1 * std::log(40.0) + 1;
  EXPECT_NEAR(MlaSoftmaxScale(rope, 192), mscale * mscale / std::sqrt(192.0), 1e-7);
  rope.attention_factor = 1.25;
  EXPECT_EQ(RopeAttentionFactor(rope), 1.25);
}

TEST(Rope, Llama3AsTransformers) {
  RopeConfig rope;
  rope.type = RopeType::kLlama3;
  rope.theta = 500000;
  rope.factor = 8;
  rope.original_max_position = 8192;
  const std::vector<float> frequencies = RopeFrequencies(rope, 128);
  EXPECT_NEAR(frequencies[0], 1.0, 1e-6);
  EXPECT_NEAR(frequencies[30], 0.00137189368, 1e-6 * 0.00137189368);
  EXPECT_NEAR(frequencies[34], 0.000178507791, 1e-6 * 0.000178507791);
  EXPECT_NEAR(frequencies[63], 3.06892588e-07, 1e-6 * 3.06892588e-07);
  // Llama 4 Scout: no passage between the two.
  rope.high_freq_factor = 1;
  for (const float frequency : RopeFrequencies(rope, 128)) EXPECT_TRUE(std::isfinite(frequency));
}

TEST(Rope, TablesHoldCosThenSin) {
  RopeConfig rope;
  std::vector<float> values(8 * 4);
  const Mat table(values.data(), DType::kF32, 8, 4);
  FillRopeTable(rope, 0, 8, table);
  EXPECT_FLOAT_EQ(table.Row<float>(5)[0], std::cos(5.0f));
  EXPECT_FLOAT_EQ(table.Row<float>(5)[1], std::cos(0.05f));
  EXPECT_FLOAT_EQ(table.Row<float>(5)[2], std::sin(5.0f));
  EXPECT_FLOAT_EQ(table.Row<float>(5)[3], std::sin(0.05f));
}

TEST(Rope, TemperatureGrowsByFloor) {
  AttentionConfig attention;
  attention.floor_scale = 4;
  attention.attn_scale = 0.5;
  std::vector<float> values(8 * 2, -1);
  const Mat table(values.data(), DType::kF32, 8, 2);
  FillTemperatureTable(attention, 0, 8, table);
  EXPECT_EQ(table.Row<float>(2)[0], 1.0f);
  EXPECT_FLOAT_EQ(table.Row<float>(3)[0], 1.0f + 0.5f * std::log(2.0f));
  EXPECT_FLOAT_EQ(table.Row<float>(7)[0], 1.0f + 0.5f * std::log(3.0f));
  EXPECT_EQ(table.Row<float>(7)[1], 0.0f);
}

}  // namespace
}  // namespace moebius::model
