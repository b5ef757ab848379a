// Weight matrices: as a checkpoint holds them (WeightSource) and as kernels read them
// (PackedWeight). Packing happens once at load; packed bytes live in memory that the caller owns.
// Plain values, any thread.
//
// Packed layout, the same for every CPU instruction set (and that of AMX's B tiles): panels of 16
// output rows; a panel runs through K, padded with zeros to a multiple of 32, in pairs: [panel][k /
// 2][16 outputs][2]. One 64-byte line of bfloat16 is 16 outputs x 2 k. float32 keeps [panel][k][16
// outputs]. Outputs are padded with zero rows to a multiple of 16. A gated weight holds gate and up
// interleaved by panel (even panels gate, odd panels up), so that one pass over the input yields
// both and the activation is applied in registers. fp8 keeps one float scale a panel and block of
// 128 k: [panel][ceil(k / 128)], the checkpoint's block scales expanded. (Its NaN codes, which no
// checkpoint has reason to hold, are not kept apart by every kernel.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/view.h"

namespace moebius::kernels {

// For GPUs the same weights lie in rows: [n][k] as a checkpoint has them, of a gated weight all
// gate rows, then all up rows; fp8 keeps its block scales, [ceil(n / 128)][ceil(k / 128)] (gated:
// two such tables, n a multiple of 128).
enum class WeightLayout : uint8_t { kPanels, kRows };

constexpr int64_t kPanelRows = 16;
constexpr int64_t kPackK = 32;
constexpr int64_t kScaleBlock = 128;

enum class WeightFormat : uint8_t { kF32, kBF16, kFp8Block };
const char* WeightFormatName(WeightFormat format);

// A matrix [n outputs, k inputs] somewhere in a checkpoint: element (i, j) is data[i * n_stride + j
// * k_stride] (strides in elements; a transposed tensor swaps them). With scales (fp8 blocks) its
// value is multiplied by scale(scale_row0 + i / 128.., ..): the block of the row and column in the
// whole tensor, of which this may be a part.
struct WeightSource {
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t n = 0;
  int64_t k = 0;
  int64_t n_stride = 0;
  int64_t k_stride = 1;
  Mat scales;  // [ceil(N / 128), ceil(K / 128)] of the whole tensor, float32 or bfloat16; data ==
               // nullptr: none
  int64_t row0 = 0;  // of this part within the whole tensor, for the scales
  int64_t col0 = 0;
  bool transposed = false;  // by Transposed(): rows here are columns of the scales

  bool has_scales() const { return scales.data != nullptr; }
  // The value as float32, scale applied.
  float At(int64_t i, int64_t j) const;
  // Rows [begin, begin + count) of this part; columns likewise.
  WeightSource Rows(int64_t begin, int64_t count) const;
  WeightSource Columns(int64_t begin, int64_t count) const;
  WeightSource Transposed() const;
};

struct PackedWeight {
  WeightFormat format = WeightFormat::kBF16;
  bool gated = false;
  int64_t n = 0;  // outputs that the operation yields: for a gated weight the intermediate size (2
                  // n source rows)
  int64_t k = 0;
  const void* data = nullptr;
  const float* scales = nullptr;  // fp8 only

  int64_t num_panels() const { return (n + kPanelRows - 1) / kPanelRows * (gated ? 2 : 1); }
  int64_t padded_k() const { return (k + kPackK - 1) / kPackK * kPackK; }
  int64_t num_scale_blocks() const { return (k + kScaleBlock - 1) / kScaleBlock; }
};

// Bytes that Pack/PackGated write (data, then scales, each 64-byte aligned).
size_t PackedBytes(WeightFormat format, int64_t n, int64_t k, bool gated);

// The same in rows: of the data and of the scales.
size_t RowsDataBytes(WeightFormat format, int64_t n, int64_t k, bool gated);
size_t RowsScaleBytes(WeightFormat format, int64_t n, int64_t k, bool gated);

// The format that holds `source` without loss where it can: float32 and float16 -> kF32, bf16 ->
// kBF16, fp8 with scales -> kFp8Block when it is not transposed and its parts align with the blocks
// (row0 with 16, col0 with 128), else kBF16 (or kF32 when `activations` is float32). In rows fp8
// stays fp8 only where the GPU's product takes it: bfloat16 activations, parts that begin on a
// block and whole blocks both ways.
WeightFormat NaturalFormat(const WeightSource& source, DType activations,
                           WeightLayout layout = WeightLayout::kPanels);

// Writes `source` into `dst` (64-byte aligned, PackedBytes long). Values are converted (and
// de-quantised) when the format differs from the source's. A gated pair must agree in n, k.
PackedWeight Pack(WeightFormat format, const WeightSource& source, void* dst);
PackedWeight PackGated(WeightFormat format, const WeightSource& gate, const WeightSource& up,
                       void* dst);

// Writes `source` in rows: data to `dst`, for fp8 scales [ceil(n / 128)][ceil(k / 128)] to
// `scales`.
void CopyRows(WeightFormat format, const WeightSource& source, void* dst, float* scales);

// The float32 value of packed element (i, j); `up` selects the half of a gated weight. Scalar path
// and tests.
float PackedAt(const PackedWeight& weight, int64_t i, int64_t j, bool up = false);

}  // namespace moebius::kernels
