// The GPU's products against ref/, through kernels/ops.h. Skipped without a GPU.
#include "kernels/cuda/gemm/few_rows.h"
#include "kernels/cuda/ops/device_test_util.h"

namespace moebius::kernels {
namespace {

TEST_P(CudaOps, DenseProducts) {
  struct Shape {
    int64_t rows, n, k;
  };
  for (const WeightFormat format : kFormats) {
    for (const DType act : kActs) {
      for (const Shape& s :
           {Shape{1, 128, 128}, Shape{5, 576, 256}, Shape{70, 384, 640}, Shape{2, 64, 96},
            Shape{130, 200, 100}, Shape{1, 256, 8320}, Shape{2, 128, 1280}, Shape{3, 200, 120},
            Shape{8, 24, 96}, Shape{8, 384, 8320}}) {
        const bool fp8 = format == WeightFormat::kFp8Block;
        if (fp8 && (s.n % 128 != 0 || s.k % 128 != 0)) continue;
        for (const DType out : kActs) {
          bench().Reset();
          const std::string what =
              fmt::format("{} {} -> {}, {} x {} x {}", WeightFormatName(format), DTypeName(act),
                          DTypeName(out), s.rows, s.n, s.k);
          // Quantised rows carry three bits; elsewhere bfloat16 rounds the result.
          const bool quantised = fp8 && act == DType::kBF16;
          const double limit = quantised ? 5e-2 : LimitOf(out) + 1e-5;
          const int64_t gap = fp8 ? 0 : 8;
          const DeviceWeights w(bench(), random_, format, 1, s.n, s.k, false);
          const TestMat a = TestMat(act, s.rows, s.k, gap).Fill(random_);
          TestMat want = TestMat(out, s.rows, s.n, gap).Fill(random_);
          TestMat got = want;
          const Mat d_out = bench().Put(got);
          const bool accumulate = out == DType::kF32;
          Gemm(device(), {.a = bench().Put(a),
                          .w = &w.device()[0],
                          .bias = {},
                          .out = d_out,
                          .accumulate = accumulate});
          Gemm(host(), {.a = a.view(),
                        .w = &w.packed()[0],
                        .bias = {},
                        .out = want.view(),
                        .accumulate = accumulate});
          bench().Get(d_out, got);
          ExpectClose(got, want, limit, "gemm " + what);

          if (out != act) continue;
          const DeviceWeights gated(bench(), random_, format, 1, s.n, s.k, true);
          SwiGlu(device(), {bench().Put(a), &gated.device()[0], d_out});
          SwiGlu(host(), {a.view(), &gated.packed()[0], want.view()});
          bench().Get(d_out, got);
          ExpectClose(got, want, 2 * limit, "swiglu " + what);

          if (fp8 && act != DType::kBF16) continue;
          const DeviceWeights down(bench(), random_, format, 1, 256, s.n, false);
          TestMat mlp = TestMat(out, s.rows, 256);
          TestMat got_mlp = mlp;
          const Mat d_mlp = bench().Put(mlp);
          Mlp(device(), {{bench().Put(a), &gated.device()[0], d_out}, &down.device()[0], d_mlp});
          Mlp(host(), {{a.view(), &gated.packed()[0], want.view()}, &down.packed()[0], mlp.view()});
          bench().Get(d_mlp, got_mlp);
          ExpectClose(got_mlp, mlp, 2 * limit, "mlp " + what);
        }
      }
    }
  }
}

// Weight row c has every code once, from c on, but for those that are no number; each input row
// picks one column, by the number whose scale is one.
TEST_P(CudaOps, EveryFp8Code) {
  constexpr int64_t kCodes = 256;
  std::vector<uint8_t> codes;
  for (int64_t i = 0; i < kCodes * kCodes; ++i) {
    const auto code = static_cast<uint8_t>(i / kCodes + i % kCodes);
    codes.push_back(std::isnan(F8E4M3ToFloat(code)) ? uint8_t{0} : code);
  }
  const DeviceWeights any(bench(), random_, WeightFormat::kFp8Block, 1, kCodes, kCodes, false);
  PackedWeight weight = any.device()[0];
  weight.data = bench().Put(codes).data();
  weight.scales = bench().Put(std::vector<float>(4, 1.0f)).data();
  TestMat a(DType::kBF16, cuda::kMaxFewRows, kCodes);
  const auto column = [](int64_t row) { return row * 37 % kCodes; };
  for (int64_t r = 0; r < cuda::kMaxFewRows; ++r) {
    for (int64_t c = 0; c < kCodes; ++c) a.Set(r, c, c == column(r) ? 448.0f : 0.0f);
  }
  TestMat got(DType::kF32, cuda::kMaxFewRows, kCodes);
  const Mat d_out = bench().Put(got);
  Gemm(device(), {bench().Put(a), &weight, {}, d_out, false});
  bench().Get(d_out, got);
  for (int64_t r = 0; r < cuda::kMaxFewRows; ++r) {
    for (int64_t n = 0; n < kCodes; ++n) {
      const auto code = codes[static_cast<size_t>(n * kCodes + column(r))];
      EXPECT_EQ(got.At(r, n), 448 * F8E4M3ToFloat(code)) << int{code};
    }
  }
}

TEST_P(CudaOps, HeadGemm) {
  struct Shape {
    int64_t rows, n, k;
  };
  for (const DType act : kActs) {
    for (const auto& [rows, n, k] :
         {Shape{6, 64, 32}, Shape{1, 64, 32}, Shape{2, 72, 128}, Shape{1, 200, 120},
          Shape{2, 40, 136}, Shape{3, 40, 120}, Shape{8, 200, 128}, Shape{8, 72, 1032}}) {
      for (const int64_t a_stride : {int64_t{0}, k + 8}) {
        bench().Reset();
        const WeightFormat format = act == DType::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
        const DeviceWeights w(bench(), random_, format, 3, n, k, false);
        const TestMat a = TestMat(act, rows, 3 * (k + 8)).Fill(random_);
        TestMat want = TestMat(act, rows, 3 * (n + 16)).Fill(random_);
        TestMat got = want;
        const Mat d_out = bench().Put(got);
        const auto from = [](const Mat& m, int64_t column) {
          return m.Cols(column, m.cols - column);
        };
        HeadGemm(device(), {.a = from(bench().Put(a), 8),
                            .a_head_stride = a_stride,
                            .weights = w.device(),
                            .out = from(d_out, 16),
                            .out_head_stride = n + 16});
        HeadGemm(host(), {.a = from(a.view(), 8),
                          .a_head_stride = a_stride,
                          .weights = w.packed(),
                          .out = from(want.view(), 16),
                          .out_head_stride = n + 16});
        bench().Get(d_out, got);
        ExpectClose(got, want, LimitOf(act), fmt::format("head_gemm {} x {} x {}", rows, n, k));
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
