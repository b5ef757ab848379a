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

GroupedGemmShape Lone(int n, int k, int rows) {
  return {GemmFormat::kFp8Block, n, k, 1, rows, 132, true};
}

TEST(GroupedGemmTiles, FewTilesOfALoneGroupFillTheBlocks) {
  struct Expected {
    int n;
    int k;
    int rows;
    int token_rows;
    int parts;
  };
  // What was the quickest of all tiles on an H200, or within a microsecond of it.
  for (const Expected& e : {Expected{7168, 16384, 96, 128, 2}, Expected{7168, 16384, 128, 128, 2},
                            Expected{7168, 16384, 256, 256, 2}, Expected{7168, 16384, 512, 256, 1},
                            Expected{4096, 7168, 128, 128, 2}, Expected{4096, 7168, 256, 128, 2},
                            Expected{4096, 7168, 512, 128, 1}, Expected{4096, 7168, 1024, 256, 1},
                            Expected{7168, 2048, 256, 128, 1}, Expected{7168, 2048, 512, 256, 1}}) {
    const GroupedGemmTile& tile = ChosenTile(Lone(e.n, e.k, e.rows));
    EXPECT_FALSE(tile.swap);
    EXPECT_EQ(tile.token_rows, e.token_rows) << e.n << " x " << e.k << ", " << e.rows;
    EXPECT_EQ(tile.parts, e.parts) << e.n << " x " << e.k << ", " << e.rows;
  }
}

TEST(GroupedGemmTiles, PartsAreForALoneGroupThatLeavesHalfOfTheBlocks) {
  int parts = -1;
  for (int i = 0; i < kNumFp8Tiles; ++i) {
    if (kFp8Tiles[i].parts > 1 && kFp8Tiles[i].token_rows == 256) parts = i;
  }
  ASSERT_GE(parts, 0);
  EXPECT_TRUE(TileFits(Lone(66 * 128, 512, 256), parts));
  EXPECT_FALSE(TileFits(Lone(66 * 128, 384, 256), parts)) << "half of k is no whole block";
  EXPECT_FALSE(TileFits(Lone(66 * 128, 512, 257), parts)) << "more tiles than half of the blocks";
  EXPECT_FALSE(TileFits(Shape(GemmFormat::kFp8Block, 1024, 512, 1, 100), parts)) << "not lone";
  for (const int rows : {65, 96, 200, 256, 700, 5000}) {
    for (int n = 128; n <= 16384; n *= 2) {
      for (const int k : {128, 384, 4096}) {
        const GroupedGemmShape shape = Lone(n, k, rows);
        const GroupedGemmConfig config = ChooseGroupedGemm(shape);
        const GroupedGemmTile& tile = TileAt(shape.format, config.tile_idx);
        EXPECT_TRUE(TileFits(shape, config.tile_idx)) << n << " x " << k << ", " << rows;
        // What the launch promises its memory for.
        const int64_t tiles =
            int64_t{(n + 127) / 128} * ((rows + tile.token_rows - 1) / tile.token_rows);
        if (tile.parts == 1) continue;
        EXPECT_FALSE(config.wide);
        EXPECT_LE(tiles * tile.weight_rows * tile.token_rows, PartialFloats(132));
        EXPECT_LE(tiles * tile.consumers * 4, PartCounters(132));
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
    if (kFp8Tiles[i].parts > 1) continue;
    EXPECT_EQ(TileFits(odd, i), kFp8Tiles[i].cluster == 1 || kFp8Tiles[i].weight_rows == 256) << i;
  }
}

}  // namespace
}  // namespace moebius::tuning
