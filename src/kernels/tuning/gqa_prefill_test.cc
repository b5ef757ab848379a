#include "kernels/tuning/gqa_prefill.h"

#include <gtest/gtest.h>

namespace moebius::kernels {
namespace {

constexpr int kSms = 132;

bool Pays(int num_heads, int32_t queries, int32_t context, int count = 1) {
  std::vector<AttentionItem> items;
  for (int32_t i = 0; i < count; ++i) items.push_back({i * queries, i, context, queries});
  const size_t taken = PlanGqaPrefill(items, num_heads, kSms).sequences.size();
  EXPECT_TRUE(taken == 0 || taken == items.size());
  return taken > 0;
}

TEST(GqaPrefill, ShapesWithHeadsOf128) {
  AttentionShape shape = {
      .num_heads = 32, .num_kv_heads = 4, .head_dim = 128, .v_head_dim = 128, .block_size = 16};
  EXPECT_TRUE(FitsGqaPrefill(shape));
  shape.block_size = 24;
  EXPECT_FALSE(FitsGqaPrefill(shape));
  shape.block_size = 8;  // boxes of 2 KB
  EXPECT_FALSE(FitsGqaPrefill(shape));
  shape.block_size = 256;
  EXPECT_TRUE(FitsGqaPrefill(shape));
  shape.act = DType::kF32;
  EXPECT_FALSE(FitsGqaPrefill(shape));
  shape.act = DType::kBF16;
  shape.head_dim = shape.v_head_dim = 64;
  EXPECT_FALSE(FitsGqaPrefill(shape));
}

TEST(GqaPrefill, ChunksPayDecodesAndFewQueriesDoNot) {
  EXPECT_TRUE(Pays(32, 2048, 2048, 4));
  EXPECT_TRUE(Pays(32, 8192, 8192));
  EXPECT_TRUE(Pays(32, 512, 512));
  EXPECT_TRUE(Pays(32, 128, 128, 8));
  EXPECT_TRUE(Pays(32, 2048, 100000));
  EXPECT_TRUE(Pays(4, 8192, 8192));  // a rank's heads
  EXPECT_FALSE(Pays(32, 1, 4096, 64));
  EXPECT_FALSE(Pays(32, 63, 4096, 64));
  EXPECT_FALSE(Pays(32, 64, 100000));  // 32 multiprocessors would have work
  EXPECT_FALSE(Pays(4, 512, 100000));
}

// What alone would take too long does not keep the others from it.
TEST(GqaPrefill, PlanHasEveryRowOfItsSequencesOnce) {
  const std::vector<AttentionItem> items = {
      {0, 0, 900, 1}, {1, 1, 700, 700}, {701, 3, 200000, 64}, {765, 4, 1000, 300}, {1065, 7, 8, 8}};
  const GqaPrefillPlan plan = PlanGqaPrefill(items, 32, kSms);
  ASSERT_EQ(plan.sequences.size(), 2u);
  EXPECT_EQ(plan.sequences[0].seq, 1);
  EXPECT_EQ(plan.sequences[1].seq, 4);
  EXPECT_EQ(plan.num_keys, 1700);
  ASSERT_EQ(plan.tiles.size(), 6u + 3u);
  for (const AttentionItem& sequence : plan.sequences) {
    int32_t rows = 0;
    for (const AttentionItem& tile : plan.tiles) {
      if (tile.seq != sequence.seq) continue;
      EXPECT_LE(tile.queries, kGqaTile);
      EXPECT_EQ((tile.row - sequence.row) % kGqaTile, 0);
      EXPECT_EQ(tile.context,
                sequence.context - sequence.queries + (tile.row - sequence.row) + tile.queries);
      rows += tile.queries;
    }
    EXPECT_EQ(rows, sequence.queries);
  }
  for (size_t i = 1; i < plan.tiles.size(); ++i) {
    EXPECT_LE(plan.tiles[i].context, plan.tiles[i - 1].context);
  }
  EXPECT_TRUE(PlanGqaPrefill({}, 32, kSms).tiles.empty());
}

}  // namespace
}  // namespace moebius::kernels
