// Tile shapes of the CUDA grouped GEMM, and which one to use: plain functions of the problem's
// sizes, testable without a GPU. Shared by host and device code, so this header includes nothing of
// CUDA.
//
// out[r, :] = rows[r, :] * weights[slot of r's group]^T. A tile is `token_rows` rows of one group
// by `weight_rows` rows of its weights, 128 bytes of K a pipeline stage. The tensor core's
// instruction is 64 rows high and 8 to 256 columns wide. With few rows a group the weights are the
// instruction's rows (`swap`), so that no work is spent on absent tokens and the kernel streams
// weights; with many, the tokens are, so that one scale a row and one a block is all the promotion
// needs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moebius::tuning {

enum class GemmFormat { kFp8Block, kBf16 };  // e4m3 with 1x128 and 128x128 scales; bf16

struct GroupedGemmTile {
  bool swap;        // weights as the instruction's rows
  int weight_rows;  // 64, 128 or 256
  int token_rows;   // 8 to 256
  int consumers;    // warpgroups that multiply
  int cluster;      // blocks that share their token rows by multicast: 1 or 2
  int parts = 1;    // of K, each summed by a block of its own (gemm/add_parts.cuh): 1, or 2 for one
                    // group whose tiles leave at least half of the blocks without work
};

constexpr int kStageBytesOfK = 128;
constexpr int kMaxSharedBytes = 227 * 1024;
constexpr int kMaxStages = 24;

// Instruction heights a consumer warpgroup covers in one tile.
constexpr int Waves(const GroupedGemmTile& tile) {
  return (tile.swap ? tile.weight_rows : tile.token_rows) / (64 * tile.consumers);
}
// Columns of the instruction.
constexpr int Columns(const GroupedGemmTile& tile) {
  return tile.swap ? tile.token_rows : tile.weight_rows;
}
constexpr int AlignUp(int value, int unit) { return (value + unit - 1) / unit * unit; }

// Token rows' scales of a stage (fp8). Tiles begin at any row but the copy engine fetches whole 16
// bytes, so a box begins up to 3 rows early and is 4 longer; it also holds at most 256 rows, so 256
// take two, which overlap.
constexpr int ScaleBoxes(const GroupedGemmTile& tile) { return tile.token_rows > 128 ? 2 : 1; }
constexpr int ScaleBoxRows(const GroupedGemmTile& tile) {
  return tile.token_rows / ScaleBoxes(tile) + 4;
}
constexpr int ScaleBytes(GemmFormat format, const GroupedGemmTile& tile) {
  return format == GemmFormat::kFp8Block ? AlignUp((tile.token_rows + 4) * 4, 128) : 0;
}
constexpr int StageBytes(GemmFormat format, const GroupedGemmTile& tile) {
  return (tile.weight_rows + tile.token_rows) * kStageBytesOfK + ScaleBytes(format, tile);
}
// Where a warp turns its part of the result before storing it: 16 rows of 64 columns, or
// `token_rows` of 16, each padded by 16 bytes against bank conflicts.
constexpr int StagingBytesPerWarp(const GroupedGemmTile& tile) {
  return tile.swap ? tile.token_rows * 48 : 16 * 144;
}
// Places of next tiles: more than there are tiles in the ring of stages (gemm/next_tile.cuh).
constexpr int kNextTiles = 32;
static_assert(kNextTiles > kMaxStages);
constexpr int FixedSharedBytes(const GroupedGemmTile& tile) {
  return AlignUp(StagingBytesPerWarp(tile) * 4 * tile.consumers, 128) + kNextTiles * 4 +
         kMaxStages * 16;
}
constexpr int NumStages(GemmFormat format, const GroupedGemmTile& tile) {
  const int fit = (kMaxSharedBytes - FixedSharedBytes(tile)) / StageBytes(format, tile);
  return fit < kMaxStages ? fit : kMaxStages;
}
constexpr int SharedBytes(GemmFormat format, const GroupedGemmTile& tile) {
  return NumStages(format, tile) * StageBytes(format, tile) + FixedSharedBytes(tile);
}

// What tiles in two parts need of device memory at most, of launches that fill so many
// multiprocessors: sums, and counters of warps.
constexpr int64_t PartialFloats(int num_sms) { return int64_t{num_sms / 2} * 256 * 128; }
constexpr int PartCounters(int num_sms) { return num_sms / 2 * 8; }

// Whether a group's last rows, where they fill at most half of this tile, may have tiles of half
// the token rows by twice the weights (gemm/tile_form.cuh).
constexpr bool HasWideForm(const GroupedGemmTile& tile) {
  return !tile.swap && tile.weight_rows == 128 && tile.token_rows == 256 && tile.consumers == 2 &&
         tile.cluster == 2 && tile.parts == 1;
}

// Every tile that is compiled, by format. The order is the index used below.
inline constexpr GroupedGemmTile kFp8Tiles[] = {
    {true, 64, 8, 1, 1},        {true, 64, 16, 1, 1},       {true, 64, 32, 1, 1},
    {true, 64, 64, 1, 1},       {true, 128, 8, 2, 1},       {true, 128, 16, 2, 1},
    {true, 128, 32, 2, 1},      {true, 128, 64, 2, 1},      {true, 256, 32, 2, 1},
    {true, 256, 64, 2, 1},      {true, 256, 96, 2, 1},      {true, 256, 128, 2, 1},
    {false, 128, 128, 2, 1},    {false, 128, 128, 2, 2},    {false, 128, 256, 2, 1},
    {false, 128, 256, 2, 2},    {false, 128, 192, 3, 1},    {false, 128, 192, 3, 2},
    {false, 128, 128, 2, 1, 2}, {false, 128, 256, 2, 1, 2},
};
inline constexpr GroupedGemmTile kBf16Tiles[] = {
    {true, 64, 8, 1, 1},     {true, 64, 16, 1, 1},    {true, 64, 32, 1, 1},
    {true, 64, 64, 1, 1},    {true, 128, 8, 2, 1},    {true, 128, 16, 2, 1},
    {true, 128, 32, 2, 1},   {true, 128, 64, 2, 1},   {true, 256, 64, 2, 1},
    {true, 256, 128, 2, 1},  {false, 128, 128, 2, 1}, {false, 128, 128, 2, 2},
    {false, 256, 128, 2, 1}, {false, 256, 128, 2, 2}, {false, 128, 256, 2, 1},
    {false, 128, 256, 2, 2},
};
constexpr int kNumFp8Tiles = sizeof(kFp8Tiles) / sizeof(kFp8Tiles[0]);
constexpr int kNumBf16Tiles = sizeof(kBf16Tiles) / sizeof(kBf16Tiles[0]);
constexpr int NumTiles(GemmFormat format) {
  return format == GemmFormat::kFp8Block ? kNumFp8Tiles : kNumBf16Tiles;
}
constexpr const GroupedGemmTile& TileAt(GemmFormat format, int index) {
  return format == GemmFormat::kFp8Block ? kFp8Tiles[index] : kBf16Tiles[index];
}

struct GroupedGemmShape {
  GemmFormat format;
  int n;              // weight rows of a slot, a multiple of 128
  int k;              // a multiple of 128
  int num_groups;     // groups that have rows
  int expected_rows;  // of a group that has any; a guess is enough, every tile is right for every
                      // count
  int num_sms;        // that the launch may fill
  bool lone = false;  // one group, of exactly expected_rows
};

struct GroupedGemmConfig {
  int tile_idx;    // into the format's table
  int num_blocks;  // persistent blocks, a multiple of the tile's cluster
  int width;       // weight tiles (of a cluster) walked side by side before the next rows: L2 reuse
  bool stream;     // weights are read once: let them leave the L2 first
  bool wide;       // half as many tiles for groups' last rows, if the tile has that form
};

// A configuration that fits `shape`; never fails for sizes that the launch accepts.
GroupedGemmConfig ChooseGroupedGemm(const GroupedGemmShape& shape);

// The configuration that uses tile `tile_idx` for `shape` (benchmarks compare them).
GroupedGemmConfig ConfigOfTile(const GroupedGemmShape& shape, int tile_idx);

// Whether tile `tile_idx` can run `shape`: a cluster needs its number of weight tiles even; parts
// need one group, a block for each part of each tile, and parts of K of whole blocks.
bool TileFits(const GroupedGemmShape& shape, int tile_idx);

}  // namespace moebius::tuning
