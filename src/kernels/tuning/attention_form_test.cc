#include "kernels/tuning/attention_form.h"

#include <gtest/gtest.h>

namespace moebius::kernels {
namespace {

AttentionShape Mla(int num_heads, int64_t block_size) {
  return {.mla = true,
          .num_heads = num_heads,
          .num_kv_heads = 1,
          .head_dim = 576,
          .v_head_dim = 512,
          .block_size = block_size};
}

TEST(AttentionForm, LatentAttentionOfDeepSeekRunsOnTensorCores) {
  for (const int heads : {8, 16, 32, 64, 128}) {
    EXPECT_EQ(ChooseAttentionForm(Mla(heads, 16)), AttentionForm::kMla) << heads;
  }
  EXPECT_EQ(ChooseAttentionForm(Mla(4, 16)), AttentionForm::kAny);
  EXPECT_EQ(ChooseAttentionForm(Mla(96, 16)), AttentionForm::kAny);
  EXPECT_EQ(ChooseAttentionForm(Mla(64, 24)), AttentionForm::kAny);
  EXPECT_EQ(ChooseAttentionForm(Mla(64, 4)), AttentionForm::kAny);
  AttentionShape small = Mla(16, 16);
  small.head_dim = 48;
  small.v_head_dim = 32;
  EXPECT_EQ(ChooseAttentionForm(small), AttentionForm::kAny);
}

TEST(AttentionForm, GroupedQueriesByWidthAndDType) {
  AttentionShape shape = {.num_heads = 32, .num_kv_heads = 4, .head_dim = 128, .v_head_dim = 128};
  EXPECT_EQ(ChooseAttentionForm(shape), AttentionForm::kGqa);
  shape.act = DType::kF32;
  EXPECT_EQ(ChooseAttentionForm(shape), AttentionForm::kAny);
  shape.act = DType::kBF16;
  shape.head_dim = shape.v_head_dim = 96;
  EXPECT_EQ(ChooseAttentionForm(shape), AttentionForm::kAny);
}

}  // namespace
}  // namespace moebius::kernels
