// The filling half of WeightPlan: weights are cut into pieces of a few MiB that threads take one by
// one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/progress.h"
#include "model/weight_plan.h"

namespace moebius::model {
namespace {

constexpr int64_t kPieceBytes =
    4 << 20;  // of the source: large enough to stream, small enough to balance

// The bytes of the file that a selected matrix spans (a part of rows or columns spans what lies
// between, too).
size_t SpanBytes(const kernels::WeightSource& matrix) {
  const int64_t last = (matrix.n - 1) * matrix.n_stride + (matrix.k - 1) * matrix.k_stride;
  return static_cast<size_t>(last + 1) * SizeOf(matrix.dtype);
}

size_t PanelBytes(kernels::WeightFormat format, const kernels::PackedWeight& weight) {
  const size_t element = format == kernels::WeightFormat::kF32    ? 4
                         : format == kernels::WeightFormat::kBF16 ? 2
                                                                  : 1;
  return static_cast<size_t>(kernels::kPanelRows * weight.padded_k()) * element;
}

// Room for `bytes`, 64-byte aligned, until the next call.
std::byte* Reserve(std::vector<std::byte>& buffer, size_t bytes) {
  if (buffer.size() < bytes + 64) buffer.resize(bytes + 64);
  return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(buffer.data()) + 63) / 64 * 64);
}

// Gives `part` random numbers in `buffer`, row-major whatever the strides of a file would be;
// `first_row` is its first row within its matrix. Inputs of deviation 1 then give outputs of
// deviation 1.
void Randomise(uint64_t seed, int64_t first_row, kernels::WeightSource& part,
               std::vector<std::byte>& buffer) {
  const size_t data_bytes =
      (static_cast<size_t>(part.n * part.k) * SizeOf(part.dtype) + 63) / 64 * 64;
  const int64_t scale_rows = part.n / kernels::kScaleBlock + 2;
  const int64_t scale_cols = part.k / kernels::kScaleBlock + 2;
  std::byte* data =
      Reserve(buffer, data_bytes + static_cast<size_t>(scale_rows * scale_cols) * sizeof(float));
  const float deviation = 1.0f / std::sqrt(static_cast<float>(part.k));
  FillRandom(seed, first_row, part.n, part.k, part.dtype, deviation, data);
  if (part.has_scales()) {
    float* scales = reinterpret_cast<float*>(data + data_bytes);
    std::fill_n(scales, scale_rows * scale_cols, RandomF8Scale(deviation));
    part.scales = Mat(scales, DType::kF32, scale_rows, scale_cols);
    part.row0 %= kernels::kScaleBlock;
    part.col0 %= kernels::kScaleBlock;
    part.transposed = false;
  }
  part.data = data;
  part.n_stride = part.k;
  part.k_stride = 1;
}

}  // namespace

void WeightPlan::AddPieces(const Entry& entry, std::vector<Piece>& pieces) const {
  if (entry.kind == Kind::kVector) {
    pieces.push_back({&entry, 0, 0, 1, 0});
    return;
  }
  const int64_t num_stacked = entry.gated ? 1 : static_cast<int64_t>(entry.sources.size());
  int64_t row = 0;
  for (int64_t s = 0; s < num_stacked; ++s) {
    const kernels::WeightSource& matrix = entry.sources[static_cast<size_t>(s)].matrix;
    const int64_t row_bytes = std::max<int64_t>(
        1, matrix.k * static_cast<int64_t>(SizeOf(matrix.dtype)) * (entry.gated ? 2 : 1));
    const int64_t block = kernels::kScaleBlock;
    const int64_t step = std::max(block, kPieceBytes / row_bytes / block * block);
    for (int64_t begin = 0; begin < matrix.n; begin += step) {
      const int64_t count = std::min(step, matrix.n - begin);
      pieces.push_back({&entry, s, begin, count, row + begin});
    }
    row += matrix.n;
  }
}

void WeightPlan::FillRowMajor(const Piece& piece, std::byte* dst) {
  const Entry& entry = *piece.entry;
  const Source& source = entry.sources.front();
  const kernels::WeightSource& matrix = source.matrix;
  if (entry.kind == Kind::kVector) {
    float* values = reinterpret_cast<float*>(dst);
    for (int64_t j = 0; j < entry.k; ++j) {
      values[j] = source.tensor.file == nullptr ? entry.random_value : matrix.At(0, j);
    }
    return;
  }
  FillTable(piece, dst);
}

void WeightPlan::FillTable(const Piece& piece, std::byte* dst) {
  const Entry& entry = *piece.entry;
  const Source& source = entry.sources.front();
  const kernels::WeightSource part = source.matrix.Rows(piece.begin, piece.count);
  const size_t element = SizeOf(ElementOf(entry));
  const size_t row_bytes = static_cast<size_t>(part.k) * element;
  if (source.tensor.file == nullptr) {
    // A row of the whole tensor, so that ranks that share its columns agree.
    std::vector<std::byte> row(static_cast<size_t>(part.n_stride) * element);
    for (int64_t i = 0; i < part.n; ++i, dst += row_bytes) {
      FillRandom(source.tensor.seed, part.row0 + i, 1, part.n_stride, ElementOf(entry), 1.0f,
                 row.data());
      std::memcpy(dst, row.data() + static_cast<size_t>(part.col0) * element, row_bytes);
    }
    return;
  }
  if (entry.as_float32) {
    kernels::CopyRows(kernels::WeightFormat::kF32, part, dst, nullptr);
  } else {
    for (int64_t i = 0; i < part.n; ++i, dst += row_bytes) {
      std::memcpy(dst, part.Rows(i, 1).data, row_bytes);
    }
  }
  source.tensor.file->DropPages(static_cast<const std::byte*>(part.data), SpanBytes(part));
}

kernels::WeightSource WeightPlan::PieceOf(const Piece& piece, int64_t half, Scratch& scratch) {
  const Source& source = piece.entry->sources[static_cast<size_t>(piece.source + half)];
  if (source.tensor.file != nullptr) return source.matrix.Rows(piece.begin, piece.count);
  kernels::WeightSource part = source.whole;
  part.n = piece.count;
  part.row0 += piece.begin;
  // A row's numbers depend on where it lies in its tensor, not on how ranks cut that: parts of one
  // tensor differ by their rows, transposed ones by their first column.
  const uint64_t begin =
      part.transposed ? static_cast<uint64_t>(part.col0) + 1 : static_cast<uint64_t>(part.col0);
  Randomise(source.tensor.seed + 0x632be59bd9b4e019ull * begin, part.row0, part,
            scratch.random[half]);
  return part.Columns(source.matrix.col0 - source.whole.col0, source.matrix.k);
}

void WeightPlan::FillPacked(const Piece& piece, std::byte* region, Scratch& scratch) {
  const Entry& entry = *piece.entry;
  const int64_t num_halves = entry.gated ? 2 : 1;
  kernels::WeightSource parts[2];
  for (int64_t h = 0; h < num_halves; ++h) parts[h] = PieceOf(piece, h, scratch);
  const auto pack = [&](void* dst) {
    return entry.gated ? kernels::PackGated(entry.format, parts[0], parts[1], dst)
                       : kernels::Pack(entry.format, parts[0], dst);
  };
  const kernels::PackedWeight whole = Describe(entry, region);
  const size_t panel_bytes = PanelBytes(entry.format, whole);
  const int64_t panel = piece.row / kernels::kPanelRows * num_halves;
  std::byte* dst = region + entry.offset + static_cast<size_t>(panel) * panel_bytes;
  if (whole.scales == nullptr || piece.count == entry.n) {
    pack(dst);
  } else {
    // Scales lie behind the data of the whole weight, but Pack puts them behind its own data: pack
    // aside, then place both.
    const kernels::PackedWeight packed = pack(Reserve(
        scratch.aside, kernels::PackedBytes(entry.format, piece.count, entry.k, entry.gated)));
    std::memcpy(dst, packed.data, static_cast<size_t>(packed.num_panels()) * panel_bytes);
    std::memcpy(
        const_cast<float*>(whole.scales) + panel * whole.num_scale_blocks(), packed.scales,
        static_cast<size_t>(packed.num_panels() * packed.num_scale_blocks()) * sizeof(float));
  }
  for (int64_t h = 0; h < num_halves; ++h) DropPages(piece, h, parts[h]);
}

void WeightPlan::DropPages(const Piece& piece, int64_t half, const kernels::WeightSource& part) {
  const SafetensorsFile* file =
      piece.entry->sources[static_cast<size_t>(piece.source + half)].tensor.file;
  if (file == nullptr) return;
  file->DropPages(static_cast<const std::byte*>(part.data), SpanBytes(part));
}

kernels::PackedWeight WeightPlan::Describe(const Entry& entry, std::byte* region) {
  kernels::PackedWeight packed;
  packed.format = entry.format;
  packed.gated = entry.gated;
  packed.n = entry.n;
  packed.k = entry.k;
  packed.data = region + entry.offset;
  if (entry.format == kernels::WeightFormat::kFp8Block) {
    packed.scales = reinterpret_cast<const float*>(region + entry.offset +
                                                   static_cast<size_t>(packed.num_panels()) *
                                                       PanelBytes(entry.format, packed));
  }
  return packed;
}

// Of a vector or table, as it is in memory.
DType WeightPlan::ElementOf(const Entry& entry) {
  return entry.kind == Kind::kVector || entry.as_float32 ? DType::kF32
                                                         : entry.sources.front().matrix.dtype;
}

// Of a vector or table: where a piece's bytes begin, and how many they are.
WeightPlan::Run WeightPlan::RowMajorRun(const Piece& piece) {
  const Entry& entry = *piece.entry;
  if (entry.kind == Kind::kVector) {
    return {entry.offset, static_cast<size_t>(entry.k) * sizeof(float)};
  }
  const size_t row_bytes = static_cast<size_t>(entry.k) * SizeOf(ElementOf(entry));
  return {entry.offset + static_cast<size_t>(piece.begin) * row_bytes,
          static_cast<size_t>(piece.count) * row_bytes};
}

Status WeightPlan::Fill(const Piece& piece, std::byte* region, Scratch& scratch,
                        platform::MemorySpace& space) const {
  if (piece.entry->kind != Kind::kPacked) {
    const Run run = RowMajorRun(piece);
    if (space.on_host()) {
      FillRowMajor(piece, region + run.offset);
      return {};
    }
    MOEBIUS_ASSIGN(std::byte* const staged, scratch.Stage(run.num_bytes, space));
    FillRowMajor(piece, staged);
    return space.Upload(region + run.offset, staged, run.num_bytes);
  }
  if (layout_ == kernels::WeightLayout::kRows) return FillRows(piece, region, scratch, space);
  FillPacked(piece, region, scratch);
  return {};
}

Result<std::unique_ptr<platform::Memory>> WeightPlan::Load(platform::ThreadPool& pool,
                                                           platform::MemorySpace& space) {
  MOEBIUS_TRY(status_);
  MOEBIUS_CHECK(layout_ == kernels::WeightLayout::kRows || space.on_host());
  MOEBIUS_ASSIGN(std::unique_ptr<platform::Memory> region,
                 space.Allocate(std::max<size_t>(packed_bytes_, 64)));
  std::vector<Piece> pieces;
  for (const Entry& entry : entries_) AddPieces(entry, pieces);
  const auto piece_bytes = [](const Piece& piece) {
    return piece.count * piece.entry->k *
           static_cast<int64_t>(SizeOf(piece.entry->sources.front().matrix.dtype)) *
           (piece.entry->gated ? 2 : 1);
  };
  int64_t total = 0;
  for (const Piece& piece : pieces) total += piece_bytes(piece);
  {
    ProgressOptions shown = DefaultProgressOptions(ProgressUnit::kBytes);
    if (!shows_progress_) shown.quiet_seconds = std::numeric_limits<double>::infinity();
    Progress progress("loading weights", total, shown);
    std::vector<Scratch> scratch(static_cast<size_t>(pool.num_threads()));
    std::vector<Status> done(pieces.size());
    pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t i, int thread_idx) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      done[static_cast<size_t>(i)] =
          Fill(piece, region->data(), scratch[static_cast<size_t>(thread_idx)], space);
      progress.Advance(piece_bytes(piece));
    });
    for (Status& status : done) MOEBIUS_TRY(std::move(status));
  }
  for (const Entry& entry : entries_) {
    if (entry.kind == Kind::kPacked) {
      *entry.packed = layout_ == kernels::WeightLayout::kPanels
                          ? Describe(entry, region->data())
                          : DescribeRows(entry, region->data());
      continue;
    }
    *entry.mat = Mat(region->data() + entry.offset, ElementOf(entry), entry.n, entry.k);
  }
  for (const auto& [offset, out] : reserved_) *out = region->data() + offset;
  return region;
}

}  // namespace moebius::model
