#include "kernels/weight.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace moebius::kernels {
namespace {

struct AlignedBytes {
  explicit AlignedBytes(size_t bytes) : storage(bytes + 128, 0xab) {
    const auto begin = reinterpret_cast<uintptr_t>(storage.data());
    data = storage.data() + ((64 - begin % 64) % 64);
  }
  std::vector<uint8_t> storage;
  uint8_t* data;
};

struct Checkpoint {
  Checkpoint(DType dtype, int64_t rows, int64_t cols, bool scaled, unsigned seed)
      : bytes(static_cast<size_t>(rows * cols) * SizeOf(dtype) + 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    source.data = bytes.data() + 1;  // a checkpoint promises no alignment
    source.dtype = dtype;
    source.n = rows;
    source.k = cols;
    source.n_stride = cols;
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = normal(random);
      uint8_t* at = bytes.data() + 1 + static_cast<size_t>(i) * SizeOf(dtype);
      if (dtype == DType::kF8E4M3) {
        *at = FloatToF8E4M3(x * 30);
      } else {
        uint32_t value = 0;
        StoreFloat(&value, dtype, 0, x);
        std::memcpy(at, &value, SizeOf(dtype));
      }
    }
    if (!scaled) return;
    const int64_t scale_rows = (rows + 127) / 128;
    const int64_t scale_cols = (cols + 127) / 128;
    for (int64_t i = 0; i < scale_rows * scale_cols; ++i) scales.push_back(0.01f * (1 + i));
    source.scales = Mat(scales.data(), DType::kF32, scale_rows, scale_cols);
  }
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
  WeightSource source;
};

float ValueAt(const Checkpoint& c, int64_t i, int64_t j) {
  uint32_t raw = 0;
  const int64_t index = i * c.source.n_stride + j;
  std::memcpy(&raw, c.bytes.data() + 1 + static_cast<size_t>(index) * SizeOf(c.source.dtype),
              SizeOf(c.source.dtype));
  const float value = LoadFloat(&raw, c.source.dtype, 0);
  if (c.scales.empty()) return value;
  return value * c.scales[i / 128 * c.source.scales.cols + j / 128];
}

void ExpectPacked(const PackedWeight& packed, const Checkpoint& c, int64_t row0, bool up = false) {
  for (int64_t i = 0; i < packed.n; ++i) {
    for (int64_t j = 0; j < packed.k; ++j) {
      float want = ValueAt(c, row0 + i, j);
      if (packed.format == WeightFormat::kBF16) want = ToFloat(ToBFloat16(want));
      ASSERT_EQ(PackedAt(packed, i, j, up), want) << i << ", " << j;
    }
  }
}

struct Case {
  DType dtype;
  bool scaled;
  WeightFormat format;
};

class PackTest : public testing::TestWithParam<Case> {};

TEST_P(PackTest, HoldsEveryValueAndPadsWithZeros) {
  const Case c = GetParam();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {16, 32}, {17, 33}, {144, 300}}) {
    const Checkpoint checkpoint(c.dtype, n, k, c.scaled, 7);
    const size_t bytes = PackedBytes(c.format, n, k, false);
    AlignedBytes memory(bytes + 64);
    const PackedWeight packed = Pack(c.format, checkpoint.source, memory.data);
    ExpectPacked(packed, checkpoint, 0);
    EXPECT_EQ(memory.data[bytes], 0xab) << "wrote past PackedBytes";
    // Padding outputs and inputs are zero, whatever was there before.
    for (int64_t i = 0; i < (n + 15) / 16 * 16; ++i) {
      for (int64_t j = 0; j < packed.padded_k(); ++j) {
        if (i < n && j < k) continue;
        PackedWeight raw = packed;
        std::vector<float> ones(packed.num_panels() * (packed.padded_k() / 128 + 1), 1.0f);
        raw.scales = ones.data();
        raw.k = packed.padded_k();
        ASSERT_EQ(PackedAt(raw, i, j), 0.0f) << i << ", " << j;
      }
    }
  }
}

TEST_P(PackTest, PartsOfATensorKeepTheirScales) {
  const Case c = GetParam();
  const Checkpoint checkpoint(c.dtype, 272, 160, c.scaled, 8);
  const WeightSource part = checkpoint.source.Rows(112, 100);
  AlignedBytes memory(PackedBytes(c.format, 100, 160, false));
  ExpectPacked(Pack(c.format, part, memory.data), checkpoint, 112);
}

TEST_P(PackTest, GateAndUpAreInterleaved) {
  const Case c = GetParam();
  const Checkpoint gate(c.dtype, 40, 136, c.scaled, 9);
  const Checkpoint up(c.dtype, 40, 136, c.scaled, 10);
  AlignedBytes memory(PackedBytes(c.format, 40, 136, true));
  const PackedWeight packed = PackGated(c.format, gate.source, up.source, memory.data);
  EXPECT_EQ(packed.num_panels(), 6);
  ExpectPacked(packed, gate, 0, false);
  ExpectPacked(packed, up, 0, true);
}

INSTANTIATE_TEST_SUITE_P(Formats, PackTest,
                         testing::Values(Case{DType::kF32, false, WeightFormat::kF32},
                                         Case{DType::kF32, false, WeightFormat::kBF16},
                                         Case{DType::kF16, false, WeightFormat::kF32},
                                         Case{DType::kBF16, false, WeightFormat::kBF16},
                                         Case{DType::kBF16, false, WeightFormat::kF32},
                                         Case{DType::kF8E4M3, true, WeightFormat::kFp8Block},
                                         Case{DType::kF8E4M3, true, WeightFormat::kBF16},
                                         Case{DType::kF8E4M3, true, WeightFormat::kF32},
                                         Case{DType::kF8E4M3, false, WeightFormat::kBF16}));

TEST(Weight, TransposedReadsTheSameElements) {
  const Checkpoint c(DType::kF8E4M3, 200, 300, true, 3);
  const WeightSource part = c.source.Rows(130, 60).Transposed();
  ASSERT_EQ(part.n, 300);
  ASSERT_EQ(part.k, 60);
  for (int64_t i = 0; i < part.n; ++i) {
    for (int64_t j = 0; j < part.k; ++j) ASSERT_EQ(part.At(i, j), ValueAt(c, 130 + j, i));
  }
  AlignedBytes memory(PackedBytes(WeightFormat::kF32, 300, 60, false));
  const PackedWeight packed = Pack(WeightFormat::kF32, part, memory.data);
  for (int64_t i = 0; i < part.n; ++i) {
    for (int64_t j = 0; j < part.k; ++j) ASSERT_EQ(PackedAt(packed, i, j), ValueAt(c, 130 + j, i));
  }
}

TEST(Weight, NaturalFormatLosesNothing) {
  const Checkpoint fp8(DType::kF8E4M3, 256, 256, true, 1);
  EXPECT_EQ(NaturalFormat(fp8.source, DType::kBF16), WeightFormat::kFp8Block);
  EXPECT_EQ(NaturalFormat(fp8.source.Rows(16, 32), DType::kBF16), WeightFormat::kFp8Block);
  EXPECT_EQ(NaturalFormat(fp8.source.Rows(8, 32), DType::kBF16), WeightFormat::kBF16);
  EXPECT_EQ(NaturalFormat(fp8.source.Rows(8, 32), DType::kF32), WeightFormat::kF32);
  EXPECT_EQ(NaturalFormat(fp8.source.Transposed(), DType::kF32), WeightFormat::kF32);
  const Checkpoint bf16(DType::kBF16, 16, 16, false, 1);
  EXPECT_EQ(NaturalFormat(bf16.source, DType::kF32), WeightFormat::kBF16);
  const Checkpoint half(DType::kF16, 16, 16, false, 1);
  EXPECT_EQ(NaturalFormat(half.source, DType::kBF16), WeightFormat::kF32);
}

}  // namespace
}  // namespace moebius::kernels
