// Weights in rows (kernels/weight.h), as GPUs read them: pieces are written by the host and copied
// to where they belong.
#include <algorithm>

#include "model/weight_plan.h"

namespace moebius::model {

Result<std::byte*> WeightPlan::Scratch::Stage(size_t num_bytes, platform::MemorySpace& space) {
  if (staging == nullptr || staging->size() < num_bytes) {
    staging.reset();
    MOEBIUS_ASSIGN(staging, space.AllocateStaging(std::max<size_t>(num_bytes, size_t{8} << 20)));
  }
  return staging->data();
}

Status WeightPlan::FillRows(const Piece& piece, std::byte* region, Scratch& scratch,
                            platform::MemorySpace& space) {
  const Entry& entry = *piece.entry;
  for (int64_t half = 0; half < (entry.gated ? 2 : 1); ++half) {
    const kernels::WeightSource part = PieceOf(piece, half, scratch);
    const size_t data_bytes = kernels::RowsDataBytes(entry.format, part.n, part.k, false);
    const size_t scale_bytes = kernels::RowsScaleBytes(entry.format, part.n, part.k, false);
    const size_t data_room = (data_bytes + 63) / 64 * 64;
    MOEBIUS_ASSIGN(std::byte* const staged, scratch.Stage(data_room + scale_bytes, space));
    kernels::CopyRows(entry.format, part, staged, reinterpret_cast<float*>(staged + data_room));
    // Rows before this piece's: those of the pieces before, and for up all of gate.
    const int64_t row = piece.row + half * entry.n;
    MOEBIUS_TRY(space.Upload(
        region + entry.offset + kernels::RowsDataBytes(entry.format, row, entry.k, false), staged,
        data_bytes));
    MOEBIUS_TRY(space.Upload(
        region + entry.scale_offset + kernels::RowsScaleBytes(entry.format, row, entry.k, false),
        staged + data_room, scale_bytes));
    DropPages(piece, half, part);
  }
  return {};
}

kernels::PackedWeight WeightPlan::DescribeRows(const Entry& entry, std::byte* region) {
  kernels::PackedWeight packed;
  packed.format = entry.format;
  packed.gated = entry.gated;
  packed.n = entry.n;
  packed.k = entry.k;
  packed.data = region + entry.offset;
  if (entry.format == kernels::WeightFormat::kFp8Block) {
    packed.scales = reinterpret_cast<const float*>(region + entry.scale_offset);
  }
  return packed;
}

}  // namespace moebius::model
