// The compile-time facts of one grouped GEMM kernel: a format and a row of its tile table.
#pragma once

#include "kernels/cuda/ptx/wgmma.cuh"
#include "kernels/tuning/grouped_gemm_tiles.h"

namespace moebius::cuda {

template <tuning::GemmFormat kFormatValue, int kTileIdx>
struct GemmTraits {
  static constexpr tuning::GemmFormat kFormat = kFormatValue;
  static constexpr tuning::GroupedGemmTile kTile = tuning::TileAt(kFormat, kTileIdx);
  static constexpr bool kFp8 = kFormat == tuning::GemmFormat::kFp8Block;
  using Operand = std::conditional_t<kFp8, ptx::E4m3, ptx::Bf16>;

  static constexpr bool kSwap = kTile.swap;
  static constexpr int kWaves = tuning::Waves(kTile);
  static constexpr int kColumns = tuning::Columns(kTile);
  static constexpr int kConsumers = kTile.consumers;
  static constexpr int kCluster = kTile.cluster;
  static constexpr int kParts = kTile.parts;
  static constexpr int kStages = tuning::NumStages(kFormat, kTile);
  // Whether a cluster asks for its next tile (next_tile.cuh), or takes every n-th.
  static constexpr bool kAsks = kCluster > 1;
  // Whether a group's last rows may have wide tiles (tile_form.cuh).
  static constexpr bool kWide = tuning::HasWideForm(kTile);
  // One warpgroup that multiplies has registers to spare; two leave too few unless the producer
  // gives its own away, and registers move between whole warpgroups.
  static constexpr bool kMoveRegisters = kConsumers > 1;
  static constexpr int kConsumerThreads = kConsumers * 128;
  static constexpr int kThreads = kConsumerThreads + (kMoveRegisters ? 128 : 32);

  static constexpr int kConsumerRegisters = kConsumers == 3 ? 160 : 232;
  static constexpr int kProducerRegisters = kConsumers == 3 ? 32 : 40;
  // A single wave leaves registers for two sets of products beside the sums, but not where three
  // warpgroups share them.
  static constexpr bool kAhead = kFp8 && kConsumers < 3;

  static constexpr int kWeightBytes = kTile.weight_rows * tuning::kStageBytesOfK;
  static constexpr int kTokenBytes = kTile.token_rows * tuning::kStageBytesOfK;
  static constexpr int kScaleBytes = tuning::ScaleBytes(kFormat, kTile);
  static constexpr int kScaleBoxes = tuning::ScaleBoxes(kTile);
  static constexpr int kArrivingBytes =
      kWeightBytes + kTokenBytes + (kFp8 ? kScaleBoxes * tuning::ScaleBoxRows(kTile) * 4 : 0);
  static constexpr int kElementsOfK = tuning::kStageBytesOfK / (kFp8 ? 1 : 2);

  static_assert(kWaves >= 1 && kStages >= 3);
  // A warpgroup's weights stand under one scale: 64 or 128 of a 128-row block, or all its columns.
  static_assert(!kFp8 || (kSwap ? kWaves <= 2 : kTile.weight_rows == 128));
  static_assert(kCluster == 1 || (!kSwap && kParts == 1));
};

}  // namespace moebius::cuda
