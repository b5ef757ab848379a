#include "kernels/tuning/latent_passes.h"

#include <gtest/gtest.h>

namespace moebius::kernels {
namespace {

TEST(LatentPasses, ShapesOfDeepSeekAreExpanded) {
  AttentionShape shape = {.mla = true,
                          .num_heads = 128,
                          .num_kv_heads = 1,
                          .head_dim = 576,
                          .v_head_dim = 512,
                          .nope_dim = 128,
                          .value_dim = 128};
  EXPECT_TRUE(FitsExpanded(shape));
  shape.act = DType::kF32;
  EXPECT_FALSE(FitsExpanded(shape));
  shape.act = DType::kBF16;
  shape.value_dim = 64;
  EXPECT_FALSE(FitsExpanded(shape));
}

TEST(LatentPasses, ChunksPayAndDecodesDoNot) {
  EXPECT_TRUE(PaysExpanded(8192, 8192));
  EXPECT_TRUE(PaysExpanded(2048, 2048));
  EXPECT_TRUE(PaysExpanded(512, 100000));
  EXPECT_TRUE(PaysExpanded(128, 128));
  EXPECT_FALSE(PaysExpanded(1, 1));
  EXPECT_FALSE(PaysExpanded(1, 8192));
  EXPECT_FALSE(PaysExpanded(64, 8192));
  EXPECT_FALSE(PaysExpanded(128, 8192));  // expanding 8192 positions for so few costs more
  EXPECT_FALSE(PaysExpanded(8192, kMaxExpandedContext + 1));
}

// Every row of every sequence is in one tile, sees what it should and finds its context's keys.
void CheckPlan(const LatentPasses& plan, std::span<const AttentionItem> items, int num_heads,
               size_t most_bytes) {
  size_t sequence = 0;
  size_t tile = 0;
  for (const LatentPass& pass : plan.passes) {
    ASSERT_EQ(static_cast<size_t>(pass.first_sequence), sequence);
    ASSERT_EQ(static_cast<size_t>(pass.first_tile), tile);
    ASSERT_GT(pass.num_sequences, 0);
    EXPECT_GE(pass.num_heads, 1);
    EXPECT_LE(pass.num_heads, num_heads);
    const int64_t heads = pass.num_sequences > 1 ? num_heads : pass.num_heads;
    if (heads > 1) {
      EXPECT_LE(static_cast<size_t>(pass.num_keys * (576 + 256 * heads) * 2), most_bytes);
    }
    int64_t rows = 0;
    int32_t end = 0;
    for (int s = 0; s < pass.num_sequences; ++s, ++sequence) {
      const LatentSequence& in_pass = plan.sequences[sequence];
      const AttentionItem& item = items[sequence];
      EXPECT_EQ(in_pass.seq, item.seq);
      EXPECT_EQ(in_pass.context, item.context);
      EXPECT_EQ(in_pass.first_key, end);
      end += static_cast<int32_t>((item.context + kLatentTile - 1) / kLatentTile * kLatentTile);
      rows += item.queries;
      int32_t covered = 0;
      for (int t = 0; t < pass.num_tiles; ++t) {
        const LatentTile& part = plan.tiles[static_cast<size_t>(pass.first_tile + t)];
        if (part.first_key != in_pass.first_key) continue;
        EXPECT_LE(part.queries, kLatentTile);
        EXPECT_EQ(part.context, item.context - item.queries + (part.row - item.row) + part.queries);
        covered += part.queries;
      }
      EXPECT_EQ(covered, item.queries);
    }
    EXPECT_EQ(pass.num_keys, end);
    for (int t = 0; t < pass.num_tiles; ++t, ++tile) {
      rows -= plan.tiles[tile].queries;
      if (t > 0) {
        EXPECT_LE(plan.tiles[tile].context, plan.tiles[tile - 1].context);
      }
    }
    EXPECT_EQ(rows, 0);
  }
  EXPECT_EQ(sequence, items.size());
  EXPECT_EQ(tile, plan.tiles.size());
}

TEST(LatentPasses, EveryRowOnceWithinTheBound) {
  const std::vector<AttentionItem> items = {{3, 3, 200, 200},
                                            {203, 4, 8192, 700},
                                            {903, 6, 128, 128},
                                            {1031, 7, 129, 65},
                                            {1096, 9, 1000, 1000}};
  for (const int num_heads : {2, 16, 128}) {
    for (const size_t bytes : {size_t{1}, size_t{10} << 20, kLatentPassBytes}) {
      const LatentPassOptions options = {
          .num_heads = num_heads, .num_sms = 132, .most_bytes = bytes};
      CheckPlan(PlanLatentPasses(items, options), items, num_heads, bytes);
    }
  }
  EXPECT_TRUE(PlanLatentPasses({}, {}).passes.empty());
}

TEST(LatentPasses, LongContextsTakeHeadsInGroups) {
  const std::vector<AttentionItem> one = {{0, 0, 8192, 8192}};
  const LatentPassOptions options = {.num_heads = 128, .num_sms = 132};
  const LatentPasses plan = PlanLatentPasses(one, options);
  ASSERT_EQ(plan.passes.size(), 1u);
  EXPECT_EQ(plan.passes[0].num_heads, 93);  // and the other 35
  EXPECT_EQ(plan.passes[0].num_tiles, 64);
  const std::vector<AttentionItem> longest = {{0, 0, kMaxExpandedContext, 512}};
  const LatentPass pass = PlanLatentPasses(longest, options).passes[0];
  EXPECT_LE(static_cast<size_t>(pass.num_keys) * (576 + 256 * pass.num_heads) * 2,
            kLatentPassBytes);
  // 9 heads of this fit: 144 tiles, of which 12 would wait for a round of their own.
  const std::vector<AttentionItem> far = {{0, 0, 65536, 2048}};
  EXPECT_EQ(PlanLatentPasses(far, options).passes[0].num_heads, 8);
}

}  // namespace
}  // namespace moebius::kernels
