#include "kernels/tuning/grouped_gemm_tiles.h"

#include <gtest/gtest.h>

namespace moebius::tuning {
namespace {

constexpr GemmFormat kFormats[] = {GemmFormat::kFp8Block, GemmFormat::kBf16};

GroupedGemmShape Shape(GemmFormat format, int n, int k, int groups, int rows) {
  return {format, n, k, groups, rows, 132};
}

const GroupedGemmTile& ChosenTile(const GroupedGemmShape& shape) {
  return TileAt(shape.format, ChooseGroupedGemm(shape).tile_idx);
}

TEST(GroupedGemmTiles, EveryTileFitsTheChip) {
  for (const GemmFormat format : kFormats) {
    for (int i = 0; i < NumTiles(format); ++i) {
      const GroupedGemmTile& tile = TileAt(format, i);
      EXPECT_LE(SharedBytes(format, tile), kMaxSharedBytes) << i;
      EXPECT_GE(NumStages(format, tile), 3) << i;
      EXPECT_GE(Waves(tile), 1) << i;
      EXPECT_EQ(Waves(tile) * 64 * tile.consumers, tile.swap ? tile.weight_rows : tile.token_rows);
      EXPECT_EQ(Columns(tile) % 8, 0) << i;
      // Accumulators: the sums, and for fp8 one wave's products beside them.
      const int sums = Waves(tile) * Columns(tile) / 2;
      const int products = format == GemmFormat::kFp8Block ? Columns(tile) / 2 : 0;
      EXPECT_LE(sums + products, tile.consumers == 3 ? 128 : 200) << i;
    }
  }
}

TEST(GroupedGemmTiles, FewRowsStreamWeights) {
  for (const GemmFormat format : kFormats) {
    for (const int rows : {1, 4, 16, 20, 32, 48}) {
      const GroupedGemmShape shape = Shape(format, 4096, 7168, 32, rows);
      const GroupedGemmConfig config = ChooseGroupedGemm(shape);
      const GroupedGemmTile& tile = TileAt(format, config.tile_idx);
      EXPECT_TRUE(tile.swap) << rows;
      EXPECT_GE(tile.token_rows, rows);
      EXPECT_LE(tile.token_rows, 4 * rows + 8);
      EXPECT_TRUE(config.stream);
      EXPECT_EQ(config.width, 1);
      // In flight a multiprocessor: enough for the memory's latency at full rate (32 KB) several
      // times over.
      EXPECT_GE(NumStages(format, tile) * tile.weight_rows * kStageBytesOfK, 96 * 1024) << rows;
    }
  }
}

TEST(GroupedGemmTiles, ManyRowsUseTokensAsRowsAndReuseTheCache) {
  for (const GemmFormat format : kFormats) {
    const GroupedGemmShape shape = Shape(format, 6144, 7168, 4, 8192);
    const GroupedGemmConfig config = ChooseGroupedGemm(shape);
    EXPECT_FALSE(TileAt(format, config.tile_idx).swap);
    EXPECT_GT(config.width, 1);
    EXPECT_FALSE(config.stream);
  }
}

TEST(GroupedGemmTiles, LastRowsHaveWideTilesWhereTilesAreMoreThanBlocks) {
  for (const GemmFormat format : kFormats) {
    EXPECT_TRUE(ChooseGroupedGemm(Shape(format, 1536, 2048, 128, 512)).wide);
    EXPECT_TRUE(ChooseGroupedGemm(Shape(format, 4096, 7168, 6, 1024)).wide);
    EXPECT_FALSE(ChooseGroupedGemm(Shape(format, 4096, 7168, 4, 120)).wide);
    EXPECT_FALSE(ChooseGroupedGemm(Shape(format, 4096, 7168, 32, 16)).wide);
    // 256 rows of outputs a cluster have a form of 512; no other tile has one.
    for (int i = 0; i < NumTiles(format); ++i) {
      const GroupedGemmTile& tile = TileAt(format, i);
      EXPECT_EQ(HasWideForm(tile), tile.token_rows == 256 && tile.cluster == 2) << i;
      if (HasWideForm(tile)) {
        EXPECT_EQ(tile.weight_rows * 2 + tile.token_rows / 2, tile.weight_rows + tile.token_rows);
      }
    }
  }
}

TEST(GroupedGemmTiles, AnyShapeGetsATileThatFits) {
  for (const GemmFormat format : kFormats) {
    for (int n = 128; n <= 2048; n += 128) {
      for (const int rows : {0, 1, 7, 8, 9, 63, 64, 65, 200, 1000, 5000}) {
        for (const int sms : {1, 7, 16, 131, 132}) {
          GroupedGemmShape shape = Shape(format, n, 256, 3, rows);
          shape.num_sms = sms;
          const GroupedGemmConfig config = ChooseGroupedGemm(shape);
          ASSERT_GE(config.tile_idx, 0);
          ASSERT_LT(config.tile_idx, NumTiles(format));
          EXPECT_TRUE(TileFits(shape, config.tile_idx)) << n;
          EXPECT_GE(config.width, 1);
          const int cluster = ChosenTile(shape).cluster;
          EXPECT_EQ(config.num_blocks % cluster, 0);
          EXPECT_GE(config.num_blocks, 1);
          EXPECT_LE(config.num_blocks, sms < cluster ? cluster : sms);
        }
      }
    }
  }
}

TEST(GroupedGemmTiles, OddWeightTilesAvoidClusters) {
  const GroupedGemmShape odd = Shape(GemmFormat::kFp8Block, 384, 512, 4, 4096);
  EXPECT_EQ(ChosenTile(odd).cluster, 1);
  for (int i = 0; i < kNumFp8Tiles; ++i) {
    EXPECT_EQ(TileFits(odd, i), kFp8Tiles[i].cluster == 1 || kFp8Tiles[i].weight_rows == 256) << i;
  }
}

}  // namespace
}  // namespace moebius::tuning
