// Matrix products of every back end against the reference, and their row invariance.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

std::string Name(const Backend* backend, WeightFormat format, DType act, int64_t t, int64_t n,
                 int64_t k) {
  return fmt::format("{} {} {} T={} N={} K={}", backend->name, WeightFormatName(format),
                     DTypeName(act), t, n, k);
}

struct Shape {
  int64_t t;
  int64_t n;
  int64_t k;
};
constexpr Shape kShapes[] = {{0, 16, 32},   {1, 16, 32},    {1, 1, 1},     {2, 17, 33},
                             {3, 48, 128},  {5, 100, 130},  {7, 63, 300},  {13, 80, 257},
                             {97, 40, 160}, {200, 160, 96}, {1, 272, 1000}};

TEST(OpsGemm, AgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const WeightFormat format : kFormats) {
      for (const DType act : kActs) {
        for (const Shape& s : kShapes) {
          Random random(s.t * 1000 + s.n);
          const TestWeight w(format, s.n, s.k, false, random);
          TestMat a(act, s.t, s.k, 5);
          a.Fill(random);
          TestMat bias(DType::kF32, 1, s.n);
          bias.Fill(random);
          for (const DType out_dtype : kActs) {
            for (const bool accumulate : {false, true}) {
              if (accumulate && out_dtype != DType::kF32) continue;
              TestMat want(out_dtype, s.t, s.n, 3);
              if (accumulate) want.Fill(random);
              TestMat got(want);
              GemmArgs args;
              args.a = a.view();
              args.w = &w.packed();
              if (s.n % 2 == 0) args.bias = bias.view();
              args.accumulate = accumulate;
              args.out = want.view();
              TestContext ref(&RefBackend());
              Gemm(ref.ctx(), args);
              args.out = got.view();
              TestContext context(backend, 2);
              Gemm(context.ctx(), args);
              ExpectNear(got, want, Name(backend, format, act, s.t, s.n, s.k));
            }
          }
        }
      }
    }
  }
}

TEST(OpsGemm, SwiGluAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const WeightFormat format : kFormats) {
      for (const DType act : kActs) {
        for (const Shape& s : kShapes) {
          Random random(s.t * 1000 + s.n);
          const TestWeight w(format, s.n, s.k, true, random);
          TestMat a(act, s.t, s.k, 2);
          a.Fill(random, 3.0f);
          TestMat want(act, s.t, s.n, 1);
          TestMat got(want);
          TestContext ref(&RefBackend());
          SwiGlu(ref.ctx(), {a.view(), &w.packed(), want.view()});
          TestContext context(backend, 2);
          SwiGlu(context.ctx(), {a.view(), &w.packed(), got.view()});
          ExpectNear(got, want, Name(backend, format, act, s.t, s.n, s.k));
        }
      }
    }
  }
}

TEST(OpsGemm, HeadGemmAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const WeightFormat format : kFormats) {
      for (const DType act : kActs) {
        for (const int64_t t : {0, 1, 5, 40}) {
          Random random(t);
          const int64_t heads = 5;
          std::vector<TestWeight> weights;
          std::vector<PackedWeight> packed;
          for (int64_t h = 0; h < heads; ++h) weights.emplace_back(format, 40, 72, false, random);
          for (const TestWeight& w : weights) packed.push_back(w.packed());
          TestMat a(act, t, heads * 80, 7);
          a.Fill(random);
          TestMat want(act, t, heads * 48, 9);
          TestMat got(want);
          HeadGemmArgs args;
          args.a = a.view().Cols(8, heads * 80 - 8);
          args.a_head_stride = 80;
          args.weights = packed;
          args.out_head_stride = 48;
          const auto out_of = [&](TestMat& m) { return m.view().Cols(3, heads * 48 - 3); };
          args.out = out_of(want);
          TestContext ref(&RefBackend());
          HeadGemm(ref.ctx(), args);
          args.out = out_of(got);
          TestContext context(backend, 2);
          HeadGemm(context.ctx(), args);
          // Columns between heads keep their poison (NaN) on both sides.
          ExpectNear(got, want, Name(backend, format, act, t, 40, 72));
          for (int64_t r = 0; r < t; ++r) EXPECT_TRUE(std::isnan(got.At(r, 0)));
        }
      }
    }
  }
}

// A row alone, in batches of every size, at every place, on several threads: the same bits.
TEST(OpsGemm, RowsAreInvariant) {
  for (const Backend* backend : AvailableBackends()) {
    const bool slow = backend == &RefBackend();
    for (const WeightFormat format : kFormats) {
      for (const DType act : kActs) {
        const int64_t n = slow ? 20 : 200;
        const int64_t k = slow ? 70 : 700;
        Random random(3);
        const TestWeight w(format, n, k, false, random);
        const TestWeight gated(format, n, k, true, random);
        TestMat a(act, 130, k);
        a.Fill(random);
        const auto run = [&](int64_t begin, int64_t count, int threads) {
          std::pair<TestMat, TestMat> out(TestMat(DType::kF32, count, n), TestMat(act, count, n));
          TestContext context(backend, threads);
          GemmArgs args;
          args.a = a.view().Rows(begin, count);
          args.w = &w.packed();
          args.out = out.first.view();
          Gemm(context.ctx(), args);
          SwiGlu(context.ctx(), {args.a, &gated.packed(), out.second.view()});
          return out;
        };
        const auto all = run(0, 130, 1);
        for (const auto& [begin, count, threads] : {std::tuple<int64_t, int64_t, int>{0, 130, 3},
                                                    {0, 1, 1},
                                                    {129, 1, 2},
                                                    {3, 2, 1},
                                                    {10, 3, 1},
                                                    {20, 4, 1},
                                                    {21, 5, 2},
                                                    {30, 7, 1},
                                                    {50, 13, 2},
                                                    {60, 64, 3}}) {
          const auto part = run(begin, count, threads);
          for (int64_t r = 0; r < count; ++r) {
            const std::string name = Name(backend, format, act, count, n, k);
            ExpectSameRow(part.first, r, all.first, begin + r, name);
            ExpectSameRow(part.second, r, all.second, begin + r, name + " gated");
          }
        }
      }
    }
  }
}

// Values that fp8 blocks and padding could spoil: denormal codes alone, zero rows, large scales.
TEST(OpsGemm, Fp8DenormalsAreExact) {
  for (const Backend* backend : VectorBackends()) {
    const int64_t k = 128;
    std::vector<uint8_t> codes(16 * k);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 8 | (i % 3 << 7));
    for (uint8_t& code : codes) code &= 0x87;
    float scale = 0.5f;
    WeightSource source;
    source.data = codes.data();
    source.dtype = DType::kF8E4M3;
    source.n = 16;
    source.k = k;
    source.n_stride = k;
    source.scales = Mat(&scale, DType::kF32, 1, 1);
    std::vector<uint8_t> memory(PackedBytes(WeightFormat::kFp8Block, 16, k, false) + 64);
    const auto begin = reinterpret_cast<uintptr_t>(memory.data());
    const PackedWeight w =
        Pack(WeightFormat::kFp8Block, source, memory.data() + (64 - begin % 64) % 64);
    TestMat a(DType::kF32, k, k);
    for (int64_t r = 0; r < k; ++r) {
      for (int64_t c = 0; c < k; ++c) a.Set(r, c, r == c ? 1.0f : 0.0f);
    }
    TestMat out(DType::kF32, k, 16);
    GemmArgs args;
    args.a = a.view();
    args.w = &w;
    args.out = out.view();
    TestContext context(backend);
    Gemm(context.ctx(), args);
    for (int64_t r = 0; r < k; ++r) {
      for (int64_t i = 0; i < 16; ++i) ASSERT_EQ(out.At(r, i), PackedAt(w, i, r));
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
