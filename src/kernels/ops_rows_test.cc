// Row operations of every back end against the reference, and their row invariance.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

constexpr int64_t kRows[] = {0, 1, 3, 70};
constexpr int64_t kWidths[] = {1, 16, 31, 64, 200, 2048};

TEST(OpsRows, EmbedAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const DType out_dtype : kActs) {
        for (const int64_t rows : kRows) {
          Random random(rows);
          TestMat table(dtype, 50, 131, 3);
          table.Fill(random);
          std::vector<TokenId> tokens;
          for (int64_t t = 0; t < rows; ++t) {
            tokens.push_back(static_cast<TokenId>(random.Below(50)));
          }
          TestMat want(out_dtype, rows, 131, 1);
          TestMat got(want);
          TestContext ref(&RefBackend());
          Embed(ref.ctx(), {tokens, table.view(), want.view()});
          TestContext context(backend, 2);
          Embed(context.ctx(), {tokens, table.view(), got.view()});
          ExpectNear(got, want, fmt::format("{} embed", backend->name), 0);
        }
      }
    }
  }
}

struct NormCase {
  bool with_x;
  bool with_residual;
  bool with_weight;
  int64_t group;
};

TEST(OpsRows, RmsNormAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const NormCase& c : {NormCase{true, false, true, 0},
                              {true, true, true, 0},
                              {false, true, true, 0},
                              {true, false, false, 0},
                              {true, false, true, 16},
                              {true, true, true, 8}}) {
      for (const DType act : kActs) {
        for (const DType out_dtype : kActs) {
          for (const int64_t rows : kRows) {
            for (const int64_t width : kWidths) {
              if (c.group != 0 && width % c.group != 0) continue;
              Random random(rows * 7 + width);
              TestMat x(act, rows, width, 2);
              x.Fill(random, 2.0f);
              TestMat residual(DType::kF32, rows, width, 1);
              residual.Fill(random);
              TestMat residual_want(residual);
              TestMat weight(DType::kF32, 1, c.group == 0 ? width : c.group);
              weight.Fill(random);
              TestMat want(out_dtype, rows, width, 3);
              TestMat got(want);
              RmsNormArgs args;
              if (c.with_x) args.x = x.view();
              if (c.with_weight) args.weight = weight.view();
              args.group = c.group;
              args.eps = 1e-5f;
              args.out = want.view();
              if (c.with_residual) args.residual = residual_want.view();
              TestContext ref(&RefBackend());
              RmsNorm(ref.ctx(), args);
              args.out = got.view();
              if (c.with_residual) args.residual = residual.view();
              TestContext context(backend, 2);
              RmsNorm(context.ctx(), args);
              const std::string name = fmt::format("{} rms_norm width {}", backend->name, width);
              ExpectNear(got, want, name, 2e-6f);
              ExpectNear(residual, residual_want, name + " residual", 1e-7f);
            }
          }
        }
      }
    }
  }
}

TEST(OpsRows, RmsNormMayWriteOverItsInput) {
  for (const Backend* backend : AvailableBackends()) {
    Random random(1);
    TestMat x(DType::kBF16, 5, 96);
    x.Fill(random);
    TestMat out(DType::kBF16, 5, 96);
    TestContext context(backend);
    RmsNormArgs args;
    args.x = x.view();
    args.group = 32;
    args.out = out.view();
    RmsNorm(context.ctx(), args);
    args.out = x.view();
    RmsNorm(context.ctx(), args);
    for (int64_t r = 0; r < 5; ++r) ExpectSameRow(x, r, out, r, "rms_norm in place");
  }
}

TEST(OpsRows, AddAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const DType act : kActs) {
      for (const int64_t rows : kRows) {
        for (const int64_t width : kWidths) {
          Random random(rows + width);
          TestMat y(act, rows, width, 4);
          y.Fill(random);
          TestMat want(DType::kF32, rows, width, 3);
          want.Fill(random);
          TestMat got(want);
          TestContext ref(&RefBackend());
          Add(ref.ctx(), {want.view(), y.view()});
          TestContext context(backend, 2);
          Add(context.ctx(), {got.view(), y.view()});
          ExpectNear(got, want, fmt::format("{} add", backend->name), 1e-7f);
        }
      }
    }
  }
}

TEST(OpsRows, CopyRowsLeavesWhatLiesBetween) {
  for (const DType act : kActs) {
    Random random(3);
    TestMat from(act, 5, 24, 4);
    from.Fill(random);
    TestMat to(act, 7, 40, 1);
    to.Fill(random);
    const TestMat before(to);
    TestContext context(&RefBackend());
    CopyRows(context.ctx(), {.from = from.view(), .to = to.view().Rows(1, 5).Cols(8, 24)});
    for (int64_t row = 0; row < 7; ++row) {
      for (int64_t column = 0; column < 40; ++column) {
        const bool copied = row >= 1 && row < 6 && column >= 8 && column < 32;
        const float want = copied ? LoadFloat(from.view().RowBytes(row - 1), act, column - 8)
                                  : LoadFloat(before.view().RowBytes(row), act, column);
        EXPECT_EQ(LoadFloat(to.view().RowBytes(row), act, column), want) << row << ", " << column;
      }
    }
  }
}

TEST(OpsRows, CopyRowsTimesAScaleARow) {
  for (const DType act : kActs) {
    Random random(4);
    TestMat from(act, 3, 8, 2);
    from.Fill(random);
    TestMat to(act, 3, 8);
    const std::vector<float> scale = {0.5f, -2.0f, 0.0f};  // exact in either dtype
    TestContext context(&RefBackend());
    CopyRows(context.ctx(), {.from = from.view(), .to = to.view(), .scale = scale});
    for (int64_t row = 0; row < 3; ++row) {
      for (int64_t column = 0; column < 8; ++column) {
        EXPECT_EQ(to.At(row, column), from.At(row, column) * scale[static_cast<size_t>(row)]);
      }
    }
  }
}

TEST(OpsRows, RopeAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const DType act : kActs) {
      for (const int64_t dim : {2, 8, 30, 64, 128}) {
        for (const int form : {0, 1, 2}) {
          for (const int64_t rows : kRows) {
            Random random(rows + dim);
            TestMat table(DType::kF32, 40, dim);
            for (int64_t p = 0; p < 40; ++p) {
              for (int64_t i = 0; i < dim / 2; ++i) {
                const double angle = static_cast<double>(p) / static_cast<double>(i + 1);
                table.Set(p, i, static_cast<float>(std::cos(angle)));
                table.Set(p, dim / 2 + i, static_cast<float>(std::sin(angle)));
              }
            }
            std::vector<Position> positions;
            for (int64_t t = 0; t < rows; ++t) {
              positions.push_back(static_cast<Position>(random.Below(40)));
            }
            TestMat want(act, rows, 3 * (dim + 7), 2);
            want.Fill(random);
            TestMat got(want);
            RopeArgs args;
            args.num_heads = 3;
            args.head_stride = dim + 7;
            args.offset = 5;
            args.dim = dim;
            args.interleaved = form > 0;
            args.deinterleave = form == 2;
            args.positions = positions;
            args.table = table.view();
            args.x = want.view();
            TestContext ref(&RefBackend());
            Rope(ref.ctx(), args);
            args.x = got.view();
            TestContext context(backend, 2);
            Rope(context.ctx(), args);
            ExpectNear(got, want, fmt::format("{} rope {} {}", backend->name, dim, form), 1e-6f);

            const TestMat before = want;  // rotated once more, elsewhere
            TestMat want_out(act, rows, 3 * (dim + 2), 3);
            want_out.Fill(random);
            TestMat got_out(want_out);
            args.out_head_stride = dim + 2;
            args.out_offset = 1;
            args.x = want.view();
            args.out = want_out.view();
            Rope(ref.ctx(), args);
            args.out = got_out.view();
            Rope(context.ctx(), args);
            ExpectNear(got_out, want_out,
                       fmt::format("{} rope out {} {}", backend->name, dim, form), 1e-6f);
            ExpectNear(want, before, "rope leaves its input", 0);
          }
        }
      }
    }
  }
}

TEST(OpsRows, KvWriteAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const DType act : kActs) {
      for (const DType cache_dtype : kActs) {
        for (const int64_t rows : kRows) {
          Random random(rows);
          TestMat x(act, rows, 77, 2);
          x.Fill(random);
          std::vector<int64_t> places(100);
          std::iota(places.begin(), places.end(), 0);
          std::shuffle(places.begin(), places.end(), random.engine());
          places.resize(rows);
          if (rows > 1) places[1] = -1;
          TestMat want(cache_dtype, 100, 77, 1);
          TestMat got(want);
          TestContext ref(&RefBackend());
          KvWrite(ref.ctx(), {x.view(), places, want.view()});
          TestContext context(backend, 2);
          KvWrite(context.ctx(), {x.view(), places, got.view()});
          for (int64_t r = 0; r < 100; ++r) ExpectSameRow(got, r, want, r, "kv_write");
          EXPECT_TRUE(got.Untouched());
        }
      }
    }
  }
}

TEST(OpsRows, KvWriteOfFp8LatentsAgreesWithRef) {
  constexpr LatentRow kLayout = {200, 24};
  for (const Backend* backend : VectorBackends()) {
    for (const DType act : kActs) {
      Random random(3);
      TestMat x(act, 9, 224, 2);
      x.Fill(random);
      const std::vector<int64_t> places = {7, -1, 19, 0, 1, 2, 13, 5, 4};
      TestMat want(DType::kF8E4M3, 20, kLayout.bytes(), 16);
      TestMat got(want);
      TestContext ref(&RefBackend());
      KvWrite(ref.ctx(), {x.view(), places, want.view(), kLayout.latent_dim});
      TestContext context(backend, 2);
      KvWrite(context.ctx(), {x.view(), places, got.view(), kLayout.latent_dim});
      for (int64_t r = 0; r < 20; ++r) ExpectSameRow(got, r, want, r, "kv_write");
      EXPECT_TRUE(got.Untouched());
      std::vector<float> row(224);
      LoadLatentRow(kLayout, got.view().RowBytes(19), row.data());
      for (int64_t c = 0; c < 224; ++c) ASSERT_NEAR(row[c], x.At(2, c), 0.3f) << c;
    }
  }
}

TEST(OpsRows, RowsAreInvariant) {
  for (const Backend* backend : AvailableBackends()) {
    for (const DType act : kActs) {
      Random random(4);
      const int64_t width = backend == &RefBackend() ? 200 : 3000;
      TestMat x(act, 300, width);
      x.Fill(random);
      const auto run = [&](int64_t begin, int64_t count, int threads) {
        TestMat out(act, count, width);
        TestContext context(backend, threads);
        RmsNormArgs args;
        args.x = x.view().Rows(begin, count);
        args.out = out.view();
        RmsNorm(context.ctx(), args);
        return out;
      };
      const TestMat all = run(0, 300, 3);
      for (const auto& [begin, count] :
           {std::pair<int64_t, int64_t>{0, 1}, {299, 1}, {17, 5}, {100, 200}}) {
        const TestMat part = run(begin, count, 2);
        for (int64_t r = 0; r < count; ++r) ExpectSameRow(part, r, all, begin + r, "rms_norm");
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
