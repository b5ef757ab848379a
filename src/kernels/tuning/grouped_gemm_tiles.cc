#include "kernels/tuning/grouped_gemm_tiles.h"

#include <algorithm>

namespace moebius::tuning {
namespace {

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

// Groups differ in size. This much room above the mean keeps most of them within one tile.
int WithSlack(int expected_rows) { return expected_rows + expected_rows / 4; }

int FindTile(GemmFormat format, bool swap, int weight_rows, int token_rows, int cluster) {
  for (int i = 0; i < NumTiles(format); ++i) {
    const GroupedGemmTile& tile = TileAt(format, i);
    if (tile.swap == swap && tile.weight_rows == weight_rows && tile.token_rows == token_rows &&
        tile.cluster == cluster && tile.parts == 1) {
      return i;
    }
  }
  return 0;
}

// Share of the last round's blocks, and of all before it, that have a tile to work on.
double Filled(int tiles, int blocks) {
  return static_cast<double>(tiles) / (CeilDiv(tiles, blocks) * blocks);
}

int ChooseFewRows(const GroupedGemmShape& shape) {
  const int rows = WithSlack(shape.expected_rows);
  const int token_rows = rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
  const int groups = std::max(shape.num_groups, 1);
  const double halves = Filled(groups * CeilDiv(shape.n, 64), shape.num_sms);
  const double wholes = Filled(groups * CeilDiv(shape.n, 128), shape.num_sms);
  // Two warpgroups a block hide more latency, unless half tiles leave fewer blocks idle at the end.
  return FindTile(shape.format, true, halves > wholes + 0.05 ? 64 : 128, token_rows, 1);
}

int ChooseManyRows(const GroupedGemmShape& shape, int token_rows) {
  return FindTile(shape.format, false, 128, token_rows, shape.n % 256 == 0 ? 2 : 1);
}

// Tiles that a block has one after the other.
int Rounds(const GroupedGemmShape& shape, const GroupedGemmTile& tile) {
  const int tiles = CeilDiv(shape.n, tile.weight_rows) *
                    CeilDiv(shape.expected_rows, tile.token_rows) * tile.parts;
  return CeilDiv(tiles, shape.num_sms);
}

// Microseconds of a product whose tiles are few, a fit of dense rows on an H200
// (bench/results/grouped-gemm-h200.md): start and end, 128 of K, and what adding parts takes.
double TimeOfFewTiles(const GroupedGemmShape& shape, const GroupedGemmTile& tile) {
  const bool large = tile.token_rows > 128;
  const double parts = tile.parts > 1 ? (large ? 8 : 4) : 0;
  const int blocks_of_k = CeilDiv(shape.k, 128 * tile.parts);
  return 5 + Rounds(shape, tile) * blocks_of_k * (large ? 0.67 : 0.46) + parts;
}

// One group: tiles of a size and in parts by which most blocks have work. Where each has but one
// tile, clusters only cost time.
int ChooseLone(const GroupedGemmShape& shape) {
  int best = -1;
  double best_time = 0;
  for (int i = 0; i < NumTiles(shape.format); ++i) {
    const GroupedGemmTile& tile = TileAt(shape.format, i);
    if (tile.swap || tile.weight_rows != 128 || tile.consumers != 2 || tile.cluster != 1 ||
        !TileFits(shape, i)) {
      continue;
    }
    const double time = TimeOfFewTiles(shape, tile);
    if (best >= 0 && time >= best_time) continue;
    best = i;
    best_time = time;
  }
  const GroupedGemmTile& tile = TileAt(shape.format, best);
  return Rounds(shape, tile) == 1 ? best : ChooseManyRows(shape, tile.token_rows);
}

}  // namespace

bool TileFits(const GroupedGemmShape& shape, int tile_idx) {
  const GroupedGemmTile& tile = TileAt(shape.format, tile_idx);
  const int weight_tiles = CeilDiv(shape.n, tile.weight_rows);
  if (weight_tiles % tile.cluster != 0) return false;
  if (tile.parts == 1) return true;
  const int tiles = weight_tiles * CeilDiv(shape.expected_rows, tile.token_rows);
  return shape.lone && shape.k % (128 * tile.parts) == 0 && tiles * tile.parts <= shape.num_sms;
}

GroupedGemmConfig ConfigOfTile(const GroupedGemmShape& shape, int tile_idx) {
  const GroupedGemmTile& tile = TileAt(shape.format, tile_idx);
  GroupedGemmConfig config = {};
  config.tile_idx = tile_idx;
  config.num_blocks = std::max(shape.num_sms / tile.cluster, 1) * tile.cluster;
  // With many row tiles, about 2048 weight rows side by side keep both operands of the running
  // tiles in the L2.
  const int row_tiles = CeilDiv(shape.expected_rows, tile.token_rows);
  config.width = row_tiles >= 8 ? std::max(2048 / (tile.weight_rows * tile.cluster), 1) : 1;
  config.stream =
      (shape.lone ? shape.expected_rows : WithSlack(shape.expected_rows)) <= tile.token_rows;
  // Half as many tiles that take longer: not where each block has but one.
  const int weight_tiles = CeilDiv(shape.n, tile.weight_rows * tile.cluster);
  config.wide = HasWideForm(tile) &&
                shape.num_groups * row_tiles * weight_tiles > config.num_blocks / tile.cluster;
  return config;
}

GroupedGemmConfig ChooseGroupedGemm(const GroupedGemmShape& shape) {
  if (shape.expected_rows <= 64) return ConfigOfTile(shape, ChooseFewRows(shape));
  if (shape.lone) return ConfigOfTile(shape, ChooseLone(shape));
  const int token_rows = WithSlack(shape.expected_rows) <= 128 ? 128 : 256;
  return ConfigOfTile(shape, ChooseManyRows(shape, token_rows));
}

}  // namespace moebius::tuning
