#include "kernels/weight.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/math.h"

namespace moebius::kernels {
namespace {

size_t ElementBytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return 4;
    case WeightFormat::kBF16:
      return 2;
    case WeightFormat::kFp8Block:
      return 1;
  }
  return 0;
}

size_t DataBytes(WeightFormat format, int64_t n, int64_t k, bool gated) {
  PackedWeight shape;
  shape.gated = gated;
  shape.n = n;
  shape.k = k;
  return static_cast<size_t>(shape.num_panels() * kPanelRows * shape.padded_k()) *
         ElementBytes(format);
}

float F8ToFloat(uint8_t bits) {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values;
    for (int i = 0; i < 256; ++i) values[i] = F8E4M3ToFloat(static_cast<uint8_t>(i));
    return values;
  }();
  return table[bits];
}

// The scale of element (i, j) of a source.
float ScaleAt(const WeightSource& source, int64_t i, int64_t j) {
  int64_t row = (source.row0 + i) / kScaleBlock;
  int64_t col = (source.col0 + j) / kScaleBlock;
  if (source.transposed) std::swap(row, col);
  return LoadFloat(source.scales.RowBytes(row), source.scales.dtype, col);
}

// Elements (i, j0 .. j0 + count) as float32, scales applied.
template <typename T, typename Convert>
void LoadRun(const WeightSource& source, int64_t i, int64_t j0, int64_t count, float* out,
             Convert convert) {
  const std::byte* row =
      static_cast<const std::byte*>(source.data) +
      (i * source.n_stride + j0 * source.k_stride) * static_cast<int64_t>(sizeof(T));
  const int64_t step = source.k_stride * static_cast<int64_t>(sizeof(T));
  for (int64_t j = 0; j < count; ++j) {
    T value;  // a checkpoint promises no alignment
    std::memcpy(&value, row + j * step, sizeof(T));
    out[j] = convert(value);
  }
}

void LoadFloats(const WeightSource& source, int64_t i, int64_t j0, int64_t count, float* out) {
  switch (source.dtype) {
    case DType::kF32:
      LoadRun<float>(source, i, j0, count, out, [](float x) { return x; });
      break;
    case DType::kBF16:
      LoadRun<BFloat16>(source, i, j0, count, out, [](BFloat16 x) { return ToFloat(x); });
      break;
    case DType::kF16:
      LoadRun<uint16_t>(source, i, j0, count, out, [](uint16_t x) { return HalfToFloat(x); });
      break;
    case DType::kF8E4M3:
      LoadRun<uint8_t>(source, i, j0, count, out, [](uint8_t x) { return F8ToFloat(x); });
      break;
    default:
      MOEBIUS_CHECK(false && "a weight is float32, bfloat16, float16 or float8_e4m3fn");
  }
  if (!source.has_scales()) return;
  for (int64_t j = 0; j < count;) {
    const int64_t block_end = ((source.col0 + j0 + j) / kScaleBlock + 1) * kScaleBlock;
    const int64_t end = std::min(count, block_end - source.col0 - j0);
    const float scale = ScaleAt(source, i, j0 + j);
    for (; j < end; ++j) out[j] *= scale;
  }
}

void Convert(float x, float& out) { out = x; }
void Convert(float x, BFloat16& out) { out = ToBFloat16(x); }

// One tile of at most 16 outputs and 32 inputs, [k / G][16][G] with G = 2, or 1 for float32: the
// unit in which both ways below fill a panel, so that their stores stay in the first-level cache.
template <typename T>
constexpr int64_t kGroup = sizeof(T) == 4 ? 1 : 2;

template <typename T>
void CopyTile(const WeightSource& source, int64_t i0, int64_t rows, int64_t j0, int64_t count,
              T* tile) {
  constexpr int64_t g = kGroup<T>;
  for (int64_t i = 0; i < rows; ++i) {
    const std::byte* row =
        static_cast<const std::byte*>(source.data) +
        ((i0 + i) * source.n_stride + j0 * source.k_stride) * static_cast<int64_t>(sizeof(T));
    if (source.k_stride == 1 && count == kPackK) {
      for (int64_t j = 0; j < kPackK; j += g) {
        std::memcpy(tile + (j * kPanelRows + i * g), row + j * static_cast<int64_t>(sizeof(T)),
                    sizeof(T) * g);
      }
      continue;
    }
    const int64_t step = source.k_stride * static_cast<int64_t>(sizeof(T));
    for (int64_t j = 0; j < count; ++j) {
      std::memcpy(tile + (j / g * kPanelRows + i) * g + j % g, row + j * step, sizeof(T));
    }
  }
}

template <typename T>
void ConvertTile(const WeightSource& source, int64_t i0, int64_t rows, int64_t j0, int64_t count,
                 T* tile) {
  constexpr int64_t g = kGroup<T>;
  float values[kPackK];
  for (int64_t i = 0; i < rows; ++i) {
    LoadFloats(source, i0 + i, j0, count, values);
    for (int64_t j = 0; j < count; ++j) {
      Convert(values[j], tile[(j / g * kPanelRows + i) * g + j % g]);
    }
  }
}

// Panel `panel` of `source` (its outputs 16 panel ..) as elements of T.
template <typename T, bool kConvert>
void PackPanel(const WeightSource& source, int64_t panel, T* dst) {
  const int64_t i0 = panel * kPanelRows;
  const int64_t rows = std::min(kPanelRows, source.n - i0);
  for (int64_t j0 = 0; j0 < source.k; j0 += kPackK, dst += kPanelRows * kPackK) {
    const int64_t count = std::min(kPackK, source.k - j0);
    if (rows < kPanelRows || count < kPackK) std::fill_n(dst, kPanelRows * kPackK, T{});
    if constexpr (kConvert) {
      ConvertTile(source, i0, rows, j0, count, dst);
    } else {
      CopyTile(source, i0, rows, j0, count, dst);
    }
  }
}

void PackOnePanel(WeightFormat format, const WeightSource& source, int64_t panel, std::byte* dst) {
  switch (format) {
    case WeightFormat::kF32:
      if (source.dtype == DType::kF32) {
        PackPanel<float, false>(source, panel, reinterpret_cast<float*>(dst));
      } else {
        PackPanel<float, true>(source, panel, reinterpret_cast<float*>(dst));
      }
      return;
    case WeightFormat::kBF16:
      if (source.dtype == DType::kBF16) {
        PackPanel<BFloat16, false>(source, panel, reinterpret_cast<BFloat16*>(dst));
      } else {
        PackPanel<BFloat16, true>(source, panel, reinterpret_cast<BFloat16*>(dst));
      }
      return;
    case WeightFormat::kFp8Block:
      PackPanel<uint8_t, false>(source, panel, reinterpret_cast<uint8_t*>(dst));
      return;
  }
}

bool AlignsWithScaleBlocks(const WeightSource& source) {
  return source.dtype == DType::kF8E4M3 && source.has_scales() && !source.transposed &&
         source.row0 % kPanelRows == 0 && source.col0 % kScaleBlock == 0;
}

PackedWeight PackHalves(WeightFormat format, const WeightSource* const* halves, int num_halves,
                        void* dst) {
  const WeightSource& first = *halves[0];
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(dst) % 64, uintptr_t{0});
  PackedWeight packed;
  packed.format = format;
  packed.gated = num_halves == 2;
  packed.n = first.n;
  packed.k = first.k;
  packed.data = dst;
  auto* bytes = static_cast<std::byte*>(dst);
  const int64_t panel_bytes =
      kPanelRows * packed.padded_k() * static_cast<int64_t>(ElementBytes(format));
  float* scales = nullptr;
  if (format == WeightFormat::kFp8Block) {
    scales = reinterpret_cast<float*>(bytes + packed.num_panels() * panel_bytes);
    packed.scales = scales;
  }
  for (int64_t p = 0; p < packed.num_panels(); ++p) {
    const WeightSource& source = *halves[p % num_halves];
    const int64_t panel = p / num_halves;
    PackOnePanel(format, source, panel, bytes + p * panel_bytes);
    for (int64_t b = 0; scales != nullptr && b < packed.num_scale_blocks(); ++b) {
      scales[p * packed.num_scale_blocks() + b] =
          ScaleAt(source, panel * kPanelRows, b * kScaleBlock);
    }
  }
  return packed;
}

void CheckSource(WeightFormat format, const WeightSource& source) {
  MOEBIUS_CHECK(source.data != nullptr);
  if (format == WeightFormat::kFp8Block) MOEBIUS_CHECK(AlignsWithScaleBlocks(source));
  if (source.dtype != DType::kF8E4M3) MOEBIUS_CHECK(!source.has_scales());
}

}  // namespace

const char* WeightFormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "float32";
    case WeightFormat::kBF16:
      return "bfloat16";
    case WeightFormat::kFp8Block:
      return "fp8 e4m3, 128x128 blocks";
  }
  return "unknown";
}

float WeightSource::At(int64_t i, int64_t j) const {
  float value;
  LoadFloats(*this, i, j, 1, &value);
  return value;
}

WeightSource WeightSource::Rows(int64_t begin, int64_t count) const {
  WeightSource part = *this;
  part.data =
      static_cast<const std::byte*>(data) + begin * n_stride * static_cast<int64_t>(SizeOf(dtype));
  part.n = count;
  part.row0 += begin;
  return part;
}

WeightSource WeightSource::Columns(int64_t begin, int64_t count) const {
  return Transposed().Rows(begin, count).Transposed();
}

WeightSource WeightSource::Transposed() const {
  WeightSource result = *this;
  std::swap(result.n, result.k);
  std::swap(result.n_stride, result.k_stride);
  std::swap(result.row0, result.col0);
  result.transposed = !transposed;
  return result;
}

size_t PackedBytes(WeightFormat format, int64_t n, int64_t k, bool gated) {
  size_t bytes = DataBytes(format, n, k, gated);
  if (format == WeightFormat::kFp8Block) {
    const int64_t panels = CeilDiv(n, kPanelRows) * (gated ? 2 : 1);
    bytes += static_cast<size_t>(panels * CeilDiv(k, kScaleBlock)) * sizeof(float);
  }
  return (bytes + 63) / 64 * 64;
}

size_t RowsDataBytes(WeightFormat format, int64_t n, int64_t k, bool gated) {
  return static_cast<size_t>(n * k * (gated ? 2 : 1)) * ElementBytes(format);
}

size_t RowsScaleBytes(WeightFormat format, int64_t n, int64_t k, bool gated) {
  if (format != WeightFormat::kFp8Block) return 0;
  return static_cast<size_t>(CeilDiv(n, kScaleBlock) * CeilDiv(k, kScaleBlock) * (gated ? 2 : 1)) *
         sizeof(float);
}

WeightFormat NaturalFormat(const WeightSource& source, DType activations, WeightLayout layout) {
  const auto keeps_blocks = [&] {
    if (!AlignsWithScaleBlocks(source)) return false;
    return layout == WeightLayout::kPanels ||
           (activations == DType::kBF16 && source.row0 % kScaleBlock == 0 &&
            source.n % kScaleBlock == 0 && source.k % kScaleBlock == 0);
  };
  switch (source.dtype) {
    case DType::kBF16:
      return WeightFormat::kBF16;
    case DType::kF8E4M3:
      if (keeps_blocks()) return WeightFormat::kFp8Block;
      if (!source.has_scales()) return WeightFormat::kBF16;  // e4m3 alone fits without loss
      return activations == DType::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
    default:
      return WeightFormat::kF32;
  }
}

PackedWeight Pack(WeightFormat format, const WeightSource& source, void* dst) {
  CheckSource(format, source);
  const WeightSource* halves[] = {&source};
  return PackHalves(format, halves, 1, dst);
}

PackedWeight PackGated(WeightFormat format, const WeightSource& gate, const WeightSource& up,
                       void* dst) {
  CheckSource(format, gate);
  CheckSource(format, up);
  MOEBIUS_CHECK_EQ(gate.n, up.n);
  MOEBIUS_CHECK_EQ(gate.k, up.k);
  const WeightSource* halves[] = {&gate, &up};
  return PackHalves(format, halves, 2, dst);
}

void CopyRows(WeightFormat format, const WeightSource& source, void* dst, float* scales) {
  if (format == WeightFormat::kFp8Block) CheckSource(format, source);
  const size_t row_bytes = static_cast<size_t>(source.k) * ElementBytes(format);
  const DType dtype = format == WeightFormat::kF32    ? DType::kF32
                      : format == WeightFormat::kBF16 ? DType::kBF16
                                                      : DType::kF8E4M3;
  const bool as_it_is = source.k_stride == 1 && source.dtype == dtype;
  std::vector<float> values(static_cast<size_t>(source.k));
  for (int64_t i = 0; i < source.n; ++i) {
    auto* row = static_cast<std::byte*>(dst) + static_cast<size_t>(i) * row_bytes;
    if (as_it_is) {
      std::memcpy(row, source.Rows(i, 1).data, row_bytes);
      continue;
    }
    LoadFloats(source, i, 0, source.k, values.data());
    for (int64_t j = 0; j < source.k; ++j) {
      StoreFloat(row, dtype, j, values[static_cast<size_t>(j)]);
    }
  }
  if (format != WeightFormat::kFp8Block) return;
  for (int64_t i = 0; i < source.n; i += kScaleBlock) {
    for (int64_t j = 0; j < source.k; j += kScaleBlock) *scales++ = ScaleAt(source, i, j);
  }
}

float PackedAt(const PackedWeight& weight, int64_t i, int64_t j, bool up) {
  const int64_t panel = i / kPanelRows * (weight.gated ? 2 : 1) + (up ? 1 : 0);
  const int64_t row = i % kPanelRows;
  const int64_t base = panel * kPanelRows * weight.padded_k();
  const int64_t paired = base + (j / 2 * kPanelRows + row) * 2 + j % 2;
  switch (weight.format) {
    case WeightFormat::kF32:
      return static_cast<const float*>(weight.data)[base + j * kPanelRows + row];
    case WeightFormat::kBF16:
      return ToFloat(static_cast<const BFloat16*>(weight.data)[paired]);
    case WeightFormat::kFp8Block:
      return F8ToFloat(static_cast<const uint8_t*>(weight.data)[paired]) *
             weight.scales[panel * weight.num_scale_blocks() + j / kScaleBlock];
  }
  return 0;
}

}  // namespace moebius::kernels
