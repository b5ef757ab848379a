#include "model/weight_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "model/testing/checkpoint_writer.h"

namespace moebius::model {
namespace {

using kernels::PackedAt;
using kernels::PackedWeight;
using kernels::WeightFormat;

platform::ThreadPool& LoadingPool() {
  static const auto pool = platform::ThreadPool::Create({0, 0});
  return *pool;
}

std::vector<float> Random(int64_t n, int64_t k, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<float> values(static_cast<size_t>(n * k));
  // Few bits: every dtype here holds them exactly.
  for (float& v : values) v = static_cast<float>(static_cast<int>(engine() % 31) - 15) / 8;
  return values;
}

// Checks `count` entries of a packed weight against [n, k] values; `row` is where they begin within
// it.
void ExpectHolds(const PackedWeight& w, const std::vector<float>& values, int64_t n, int64_t k,
                 int64_t row, bool up = false, float scale_step = 0) {
  std::mt19937 engine(1);
  for (int i = 0; i < 2000; ++i) {
    const int64_t r = i < n ? i * (n / std::min<int64_t>(n, 2000)) : engine() % n;
    const int64_t c = static_cast<int64_t>(engine()) % k;
    const float scale =
        scale_step == 0
            ? 1
            : 1 + scale_step * static_cast<float>(r / 128 * ((k + 127) / 128) + c / 128);
    ASSERT_EQ(PackedAt(w, row + r, c, up), values[static_cast<size_t>(r * k + c)] * scale)
        << r << ", " << c;
  }
}

struct Opened {
  explicit Opened(const std::map<std::string, TestTensor>& tensors, bool fp8 = false) {
    folder.Write("model.safetensors", SafetensorsBytes(tensors));
    auto opened = Checkpoint::Open(folder.path());
    EXPECT_TRUE(opened) << opened.error().message();
    checkpoint = std::make_unique<Checkpoint>(std::move(*opened));
    source = CheckpointSource(*checkpoint, fp8);
  }
  TempFolder folder;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<TensorSource> source;
};

TEST(WeightPlan, PacksLargeWeightsInPieces) {
  const int64_t n = 3001;
  const int64_t k = 1030;  // 6 MB of bfloat16: two pieces
  const std::vector<float> a = Random(n, k, 1);
  const std::vector<float> b = Random(n, k, 2);
  const Opened opened({{"a", MakeTensor({n, k}, a, DType::kBF16)},
                       {"b", MakeTensor({n, k}, b, DType::kBF16)},
                       {"odd", MakeTensor({3}, {1, 2, 3}, DType::kF16)},
                       {"z", MakeTensor({3}, {7, 8, 9})}});
  WeightPlan plan(*opened.source, DType::kBF16);
  Mat table;
  Mat vector;
  PackedWeight packed;
  PackedWeight gated;
  plan.Table(Part::kEmbedding, WholeMatrix("a", n, k, false), &table);
  plan.Vector(Part::kNorms, "z", 3, 1, &vector);
  plan.Packed(Part::kHead, WholeMatrix("a", n, k), &packed);
  plan.Gated(Part::kDenseMlp, WholeMatrix("a", n, k), WholeMatrix("b", n, k), &gated);
  ASSERT_TRUE(plan.status()) << plan.status().error().message();
  ASSERT_EQ(plan.tensors().size(), 3u);  // each once
  const auto region = plan.Load(LoadingPool());
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_EQ(packed.format, WeightFormat::kBF16);
  ExpectHolds(packed, a, n, k, 0);
  ExpectHolds(gated, a, n, k, 0, false);
  ExpectHolds(gated, b, n, k, 0, true);
  EXPECT_EQ(LoadFloat(table.data, table.dtype, (n - 1) * k + 5),
            a[static_cast<size_t>((n - 1) * k + 5)]);
  EXPECT_EQ(vector.Row<float>(0)[2], 9.0f);
}

TEST(WeightPlan, StacksByOutputs) {
  const std::vector<float> a = Random(32, 40, 1);
  const std::vector<float> b = Random(20, 40, 2);
  const std::vector<float> c = Random(7, 40, 3);
  const Opened opened({{"a", MakeTensor({32, 40}, a, DType::kBF16)},
                       {"b", MakeTensor({20, 40}, b, DType::kBF16)},
                       {"c", MakeTensor({7, 40}, c, DType::kBF16)}});
  WeightPlan plan(*opened.source, DType::kF32);
  Linear linear;
  plan.Stacked(Part::kAttention,
               {WholeMatrix("a", 32, 40), WholeMatrix("b", 20, 40), WholeMatrix("c", 7, 40)},
               &linear);
  const auto region = plan.Load(LoadingPool());
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_EQ(linear.n, 59);
  ASSERT_EQ(linear.parts.size(), 2u);  // c cannot follow 52 rows without a seam
  ExpectHolds(linear.parts[0], a, 32, 40, 0);
  ExpectHolds(linear.parts[0], b, 20, 40, 32);
  ExpectHolds(linear.parts[1], c, 7, 40, 0);
}

// Scales 1, 1.25, 1.5, ... by block, in row-major order.
TestTensor Scales(int64_t n, int64_t k, DType dtype) {
  const int64_t rows = (n + 127) / 128;
  const int64_t cols = (k + 127) / 128;
  std::vector<float> values;
  for (int64_t i = 0; i < rows * cols; ++i) values.push_back(1 + 0.25f * static_cast<float>(i));
  return MakeTensor({rows, cols}, values, dtype);
}

TEST(WeightPlan, KeepsFp8BlocksAndTheirScales) {
  const int64_t n = 4400;
  const int64_t k = 1000;  // two pieces; ragged blocks
  const std::vector<float> a = Random(n, k, 1);
  const std::vector<float> b = Random(144, 1000, 2);
  const Opened opened({{"a", MakeTensor({n, k}, a, DType::kF8E4M3)},
                       {"a_scale_inv", Scales(n, k, DType::kF32)},
                       {"b", MakeTensor({144, 1000}, b, DType::kF8E4M3)},
                       {"b_scale_inv", Scales(144, 1000, DType::kBF16)}},
                      true);
  WeightPlan plan(*opened.source, DType::kF32);
  PackedWeight packed;
  PackedWeight gated;
  PackedWeight transposed;
  Linear linear;
  plan.Packed(Part::kHead, WholeMatrix("a", n, k), &packed);
  plan.Gated(Part::kDenseMlp, WholeMatrix("a", n, k), WholeMatrix("a", n, k), &gated);
  plan.Stacked(Part::kAttention, {WholeMatrix("b", 144, k), WholeMatrix("a", n, k)}, &linear);
  Matrix part = WholeMatrix("a", n, k);
  part.select = [](const kernels::WeightSource& whole) {
    return whole.Rows(100, 300).Transposed();
  };
  plan.Packed(Part::kAttention, part, &transposed);
  const auto region = plan.Load(LoadingPool());
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_EQ(packed.format, WeightFormat::kFp8Block);
  ExpectHolds(packed, a, n, k, 0, false, 0.25f);
  ExpectHolds(gated, a, n, k, 0, false, 0.25f);
  ExpectHolds(gated, a, n, k, 0, true, 0.25f);
  ASSERT_EQ(linear.parts.size(), 1u);
  ExpectHolds(linear.parts[0], b, 144, k, 0, false, 0.25f);
  ExpectHolds(linear.parts[0], a, n, k, 144, false, 0.25f);
  EXPECT_EQ(transposed.format, WeightFormat::kF32);  // scales run the other way
  EXPECT_EQ(PackedAt(transposed, 999, 299),
            a[399 * 1000 + 999] * (1 + 0.25f * (399 / 128 * 8 + 999 / 128)));
}

TEST(WeightPlan, GroupsMeetInOneFormat) {
  const std::vector<float> a = Random(16, 16, 1);
  const Opened opened(
      {{"a", MakeTensor({16, 16}, a, DType::kBF16)}, {"b", MakeTensor({16, 16}, a, DType::kF16)}});
  WeightPlan plan(*opened.source, DType::kBF16);
  std::vector<PackedWeight> group;
  plan.Group(Part::kRoutedExperts, {WholeMatrix("a", 16, 16), WholeMatrix("b", 16, 16)}, &group);
  const auto region = plan.Load(LoadingPool());
  ASSERT_TRUE(region);
  ASSERT_EQ(group.size(), 2u);
  for (const PackedWeight& w : group) {
    EXPECT_EQ(w.format, WeightFormat::kF32);
    ExpectHolds(w, a, 16, 16, 0);
  }
}

// Element (i, j) of a weight in rows; `up`: of the second half.
float RowsAt(const PackedWeight& w, int64_t i, int64_t j, bool up = false) {
  const int64_t row = i + (up ? w.n : 0);
  if (w.format == WeightFormat::kF32) return static_cast<const float*>(w.data)[row * w.k + j];
  if (w.format == WeightFormat::kBF16) {
    return ToFloat(static_cast<const BFloat16*>(w.data)[row * w.k + j]);
  }
  const int64_t blocks = (w.k + 127) / 128;
  return F8E4M3ToFloat(static_cast<const uint8_t*>(w.data)[row * w.k + j]) *
         w.scales[row / 128 * blocks + j / 128];
}

TEST(WeightPlan, InRows) {
  const int64_t n = 4352;  // 34 blocks: more than one piece
  const int64_t k = 1024;
  const std::vector<float> a = Random(n, k, 1);
  const std::vector<float> b = Random(144, k, 2);
  const Opened opened({{"a", MakeTensor({n, k}, a, DType::kF8E4M3)},
                       {"a_scale_inv", Scales(n, k, DType::kF32)},
                       {"b", MakeTensor({144, k}, b, DType::kF8E4M3)},
                       {"b_scale_inv", Scales(144, k, DType::kBF16)},
                       {"c", MakeTensor({144, k}, b, DType::kBF16)},
                       {"h", MakeTensor({144, k}, b, DType::kF16)},
                       {"v", MakeTensor({3}, {7, 8, 9})}},
                      true);
  WeightPlan plan(*opened.source, DType::kBF16, kernels::WeightLayout::kRows);
  std::vector<PackedWeight> pool;
  std::vector<PackedWeight> down;
  std::vector<PackedWeight> heads;
  PackedWeight transposed;
  Linear linear;
  Mat table;
  Mat vector;
  const Matrix whole = WholeMatrix("a", n, k);
  plan.GatedGroup(Part::kRoutedExperts, {whole, whole}, {whole, whole}, &pool);
  // Who holds none of a group's matrices knows their format, too.
  Matrix elsewhere = whole;
  elsewhere.held = false;
  std::vector<PackedWeight> none;
  EXPECT_EQ(plan.GatedGroup(Part::kRoutedExperts, {elsewhere}, {elsewhere}, &none),
            kernels::WeightFormat::kFp8Block);
  EXPECT_TRUE(none.empty());
  plan.Group(Part::kRoutedExperts, {whole, whole}, &down);
  plan.Heads(Part::kAttention, {whole, whole}, &heads);
  plan.Stacked(Part::kAttention, {whole, WholeMatrix("b", 144, k)}, &linear);
  Matrix part = whole;
  part.select = [](const kernels::WeightSource& all) { return all.Rows(100, 300).Transposed(); };
  plan.Packed(Part::kAttention, part, &transposed);
  plan.Table(Part::kEmbedding, WholeMatrix("c", 144, k, false), &table);
  Mat half;
  plan.Table(Part::kEmbedding, WholeMatrix("h", 144, k, false), &half);
  plan.Vector(Part::kNorms, "v", 3, 1, &vector);
  const auto memory = plan.Load(LoadingPool());
  ASSERT_TRUE(memory) << memory.error().message();
  const auto wanted = [&](int64_t i, int64_t j) {
    return a[static_cast<size_t>(i * k + j)] *
           (1 + 0.25f * static_cast<float>(i / 128 * 8 + j / 128));
  };
  std::mt19937 engine(1);
  for (int t = 0; t < 2000; ++t) {
    const auto i = static_cast<int64_t>(engine() % static_cast<uint32_t>(n));
    const auto j = static_cast<int64_t>(engine() % static_cast<uint32_t>(k));
    ASSERT_EQ(RowsAt(pool[1], i, j), wanted(i, j)) << i << ", " << j;
    ASSERT_EQ(RowsAt(pool[0], i, j, true), wanted(i, j)) << i << ", " << j;
    ASSERT_EQ(RowsAt(down[1], i, j), wanted(i, j)) << i << ", " << j;
    ASSERT_EQ(RowsAt(heads[1], i, j), ToFloat(ToBFloat16(wanted(i, j))));
    // One part has no whole blocks, so the stack is bfloat16: the value, rounded once.
    ASSERT_EQ(RowsAt(linear.parts[0], i, j), ToFloat(ToBFloat16(wanted(i, j))));
  }
  EXPECT_EQ(pool[0].format, WeightFormat::kFp8Block);
  // A grouped product sees one pool of slots, and of their scales.
  const auto* first = static_cast<const uint8_t*>(pool[0].data);
  EXPECT_EQ(static_cast<const uint8_t*>(pool[1].data) - first, 2 * n * k);
  EXPECT_EQ(pool[1].scales - pool[0].scales, 2 * (n / 128) * (k / 128));
  ASSERT_EQ(linear.parts.size(), 1u);
  EXPECT_EQ(transposed.format, WeightFormat::kBF16);
  EXPECT_EQ(RowsAt(transposed, 999, 299), ToFloat(ToBFloat16(wanted(399, 999))));
  EXPECT_EQ(LoadFloat(table.data, table.dtype, 143 * k + 5), b[143 * k + 5]);
  EXPECT_EQ(half.dtype, DType::kF32);
  EXPECT_EQ(half.Row<float>(143)[5], b[143 * k + 5]);
  EXPECT_EQ(vector.Row<float>(0)[2], 9.0f);
}

// Inputs [begin, begin + count) of `matrix` are those of the whole, whatever holds them.
void ExpectCut(const TensorSource& source, const Matrix& matrix, int64_t begin, int64_t count,
               WeightFormat format) {
  WeightPlan plan(source, DType::kF32);
  PackedWeight whole;
  PackedWeight cut;
  plan.Packed(Part::kAttention, matrix, &whole);
  plan.Packed(Part::kAttention, ColumnsOf(matrix, begin, count), &cut);
  const auto region = plan.Load(LoadingPool());
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_EQ(cut.format, format);
  EXPECT_EQ(cut.n, whole.n);
  ASSERT_EQ(cut.k, count);
  for (int64_t i = 0; i < cut.n; i += 3) {
    for (int64_t j = 0; j < count; ++j) {
      ASSERT_EQ(PackedAt(cut, i, j), PackedAt(whole, i, begin + j)) << i << ", " << j;
    }
  }
}

TEST(WeightPlan, CutsInputs) {
  const Opened opened({{"a", MakeTensor({144, 400}, Random(144, 400, 1), DType::kF8E4M3)},
                       {"a_scale_inv", Scales(144, 400, DType::kF32)}},
                      true);
  const Matrix a = WholeMatrix("a", 144, 400);
  ExpectCut(*opened.source, a, 128, 256, WeightFormat::kFp8Block);
  ExpectCut(*opened.source, a, 64, 100, WeightFormat::kF32);  // blocks begin elsewhere
  ExpectCut(*opened.source, RowsOf(a, 32, 64), 128, 272, WeightFormat::kFp8Block);
  ModelConfig config;
  config.dtype = DType::kBF16;
  ExpectCut(*RandomSource(config), a, 48, 100, WeightFormat::kBF16);
  Matrix turned = a;
  turned.select = [](const kernels::WeightSource& all) { return all.Rows(16, 96).Transposed(); };
  ExpectCut(*RandomSource(config), turned, 32, 48, WeightFormat::kBF16);
  config.fp8_blocks = true;
  ExpectCut(*RandomSource(config), a, 128, 256, WeightFormat::kFp8Block);
}

// As GPUs have them: rows of bytes, and scales of their own.
TEST(WeightPlan, CutsInputsInRows) {
  const Opened opened({{"a", MakeTensor({256, 512}, Random(256, 512, 1), DType::kF8E4M3)},
                       {"a_scale_inv", Scales(256, 512, DType::kF32)}},
                      true);
  const Matrix a = WholeMatrix("a", 256, 512);
  WeightPlan plan(*opened.source, DType::kBF16, kernels::WeightLayout::kRows);
  PackedWeight whole;
  PackedWeight cut;
  plan.Packed(Part::kAttention, a, &whole);
  plan.Packed(Part::kAttention, ColumnsOf(a, 128, 256), &cut);
  const auto region = plan.Load(LoadingPool());
  ASSERT_TRUE(region) << region.error().message();
  ASSERT_EQ(cut.format, WeightFormat::kFp8Block);
  ASSERT_EQ(cut.k, 256);
  const auto* const all = static_cast<const std::byte*>(whole.data);
  const auto* const some = static_cast<const std::byte*>(cut.data);
  for (int64_t row = 0; row < 256; ++row) {
    EXPECT_TRUE(std::equal(some + row * 256, some + (row + 1) * 256, all + row * 512 + 128)) << row;
  }
  for (int64_t block = 0; block < 4; ++block) {
    EXPECT_EQ(cut.scales[block], whole.scales[block / 2 * 4 + 1 + block % 2]) << block;
  }
  EXPECT_NE(cut.scales[0], cut.scales[1]);
}

std::string Message(const Opened& opened, int64_t n, int64_t k, bool quantizable = true) {
  WeightPlan plan(*opened.source, DType::kF32);
  PackedWeight packed;
  plan.Packed(Part::kHead, WholeMatrix("w", n, k, quantizable), &packed);
  plan.Packed(Part::kHead, WholeMatrix("never asked for", n, k), &packed);
  const auto region = plan.Load(LoadingPool());
  EXPECT_FALSE(region);
  return plan.status() ? "" : plan.status().error().message();
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(WeightPlan, NamesWhatIsWrong) {
  const std::vector<float> values(6, 1.0f);
  const Opened bf16({{"w", MakeTensor({2, 3}, values, DType::kBF16)}});
  const Opened fp8({{"w", MakeTensor({2, 3}, values, DType::kF8E4M3)}});
  TestTensor bad = MakeTensor({2, 3}, values);
  bad.dtype = "I32";
  const Opened ints({{"w", bad}});
  const Opened unscaled({{"w", MakeTensor({2, 3}, values, DType::kF8E4M3)}}, true);
  const Opened misscaled({{"w", MakeTensor({2, 3}, values, DType::kF8E4M3)},
                          {"w_scale_inv", MakeTensor({2, 1}, {1, 1})}},
                         true);
  EXPECT_HAS(Message(bf16, 3, 2),
             "model.safetensors: tensor 'w' has shape [2, 3], expected [3, 2]");
  EXPECT_HAS(Message(ints, 2, 3), "tensor 'w' is I32, expected BF16, F16, F32 or F8_E4M3");
  EXPECT_HAS(Message(fp8, 2, 3),
             "tensor 'w' is F8_E4M3, expected BF16, F16 or F32 (config.json has "
             "no fp8 quantization_config)");
  EXPECT_HAS(Message(unscaled, 2, 3), "tensor 'w_scale_inv' is missing, expected shape [1, 1]");
  EXPECT_HAS(Message(misscaled, 2, 3), "tensor 'w_scale_inv' has shape [2, 1], expected [1, 1]");
  EXPECT_HAS(Message(misscaled, 2, 3, false), "tensor 'w' is F8_E4M3, expected BF16");
  const Opened empty({});
  EXPECT_HAS(Message(empty, 2, 3), "tensor 'w' is missing, expected shape [2, 3]");
}

TEST(RandomWeights, HaveTheWishedDeviationInEveryFormat) {
  ModelConfig config;
  for (const bool fp8 : {false, true}) {
    config.fp8_blocks = fp8;
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF16}) {
      config.dtype = dtype;
      const auto source = RandomSource(config);
      WeightPlan plan(*source, DType::kBF16);
      PackedWeight packed;
      PackedWeight part;
      plan.Packed(Part::kHead, WholeMatrix("w", 5000, 600), &packed);
      Matrix selected = WholeMatrix("w", 5000, 600);
      selected.select = [](const kernels::WeightSource& whole) {
        return whole.Rows(1000, 200).Transposed();
      };
      plan.Packed(Part::kHead, selected, &part);
      const auto region = plan.Load(LoadingPool());
      ASSERT_TRUE(region);
      EXPECT_EQ(packed.format == WeightFormat::kFp8Block, fp8);
      EXPECT_EQ(part.n, 600);
      EXPECT_EQ(part.k, 200);
      double sum = 0;
      double square = 0;
      for (int64_t i = 0; i < 5000; i += 7) {
        for (int64_t j = 0; j < 600; ++j) {
          sum += PackedAt(packed, i, j);
          square += std::pow(PackedAt(packed, i, j), 2);
        }
      }
      const double count = 715.0 * 600;
      EXPECT_NEAR(sum / count, 0, 1e-3);
      EXPECT_NEAR(square / count * 600, 1, 0.03);
      EXPECT_NE(PackedAt(packed, 0, 0), PackedAt(packed, 4999, 0));
    }
  }
}

}  // namespace
}  // namespace moebius::model
