// What every operation leans on: exp and its accuracy, and the rounding of the inner kernels.
#include "kernels/cpu/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

float ExpOf(const CpuKernels& cpu, float x) {
  float out;
  cpu.exp_sum(&x, 1, 0.0f, 1.0f, &out);
  return out;
}

TEST(CpuKernels, ExpIsWithinTwoUlp) {
  for (const Backend* backend : VectorBackends()) {
    std::vector<float> x;
    for (float v = -87.3f; v < 88.3f; v += 1.7e-3f) x.push_back(v);
    for (float v = 1e-30f; v < 1; v *= 1.1f) {
      x.push_back(v);
      x.push_back(-v);
    }
    std::vector<float> out(x.size());
    backend->cpu->exp_sum(x.data(), static_cast<int64_t>(x.size()), 0.0f, 1.0f, out.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(static_cast<double>(x[i]));
      const double ulp = std::ldexp(1.0, std::ilogb(want) - 23);
      worst = std::max(worst, std::fabs(out[i] - want) / ulp);
      ASSERT_EQ(out[i], ExpOf(*backend->cpu, x[i])) << "alone and in a row: " << x[i];
    }
    EXPECT_LT(worst, 2.0) << backend->name;
  }
}

TEST(CpuKernels, ExpAtTheEdges) {
  for (const Backend* backend : VectorBackends()) {
    const CpuKernels& cpu = *backend->cpu;
    EXPECT_EQ(ExpOf(cpu, 0.0f), 1.0f);
    EXPECT_EQ(ExpOf(cpu, -0.0f), 1.0f);
    EXPECT_EQ(ExpOf(cpu, -kInf), 0.0f);
    EXPECT_EQ(ExpOf(cpu, -1e30f), 0.0f);
    EXPECT_EQ(ExpOf(cpu, -88.0f), 0.0f);
    EXPECT_TRUE(std::isfinite(ExpOf(cpu, 1e30f)));
    EXPECT_TRUE(std::isnan(ExpOf(cpu, std::nanf(""))));
  }
}

TEST(CpuKernels, BFloat16RoundsAsTheScalar) {
  for (const Backend* backend : VectorBackends()) {
    Random random(1);
    std::vector<float> x = {0.0f, -0.0f, kInf, -kInf, std::nanf(""), 1e-40f, -1e-45f, 3.4e38f};
    // Halfway cases, and any bits whatever.
    for (uint32_t bits = 0x3f7f0000; bits < 0x3f830000; bits += 0x4000) {
      x.push_back(std::bit_cast<float>(bits));
    }
    for (int i = 0; i < 100000; ++i) {
      x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random.engine()())));
    }
    const auto n = static_cast<int64_t>(x.size());
    std::vector<BFloat16> narrow(x.size());
    std::vector<float> wide(x.size());
    const kernels::Run out = {narrow.data(), DType::kBF16};
    backend->cpu->convert({x.data(), DType::kF32}, n, out);
    backend->cpu->convert(out, n, {wide.data(), DType::kF32});
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(narrow[i].bits, ToBFloat16(x[i]).bits) << x[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), std::bit_cast<uint32_t>(ToFloat(narrow[i])));
    }
  }
}

TEST(CpuKernels, WidensEveryFp8CodeAsTheScalar) {
  std::vector<std::byte> codes;
  for (int i = 0; i < 256; ++i) codes.push_back(static_cast<std::byte>(i));
  for (const Backend* backend : VectorBackends()) {
    for (const int64_t n : {256, 250, 3}) {
      std::vector<float> out(257, -7.0f);
      backend->cpu->widen_e4m3(codes.data() + 256 - n, n, 0.37f, out.data());
      for (int64_t i = 0; i < n; ++i) {
        const float want = F8E4M3ToFloat(static_cast<uint8_t>(256 - n + i)) * 0.37f;
        ASSERT_TRUE(out[i] == want || (std::isnan(out[i]) && std::isnan(want))) << 256 - n + i;
      }
      EXPECT_EQ(out[n], -7.0f);
    }
  }
}

TEST(CpuKernels, EveryFp8CodeIsExact) {
  for (const Backend* backend : VectorBackends()) {
    // One panel of 32 inputs: code i at output i % 16, input i / 16; the activations pick an input.
    std::vector<uint8_t> panel(512 + 64);
    const auto begin = reinterpret_cast<uintptr_t>(panel.data());
    uint8_t* codes = panel.data() + (64 - begin % 64) % 64;
    for (int i = 0; i < 256; ++i) codes[(i / 16 / 2 * 16 + i % 16) * 2 + i / 16 % 2] = i;
    alignas(64) std::byte scratch[kMultiplyScratch];
    for (const int64_t rows : {16, 1}) {  // many rows, and few
      std::vector<float> a(16 * 32, 0.0f);
      for (int64_t r = 0; r < 16; ++r) a[r * 32 + r] = 1.0f;
      std::vector<float> sums(16 * 16, 0.0f);
      const float scale = 1.0f;
      for (int64_t r = 0; r < 16; r += rows) {
        MultiplyArgs args;
        args.kind = MultiplyArgs::Kind::kFp8;
        args.a = a.data() + r * 32;
        args.a_stride = 32;
        args.rows = rows;
        args.w = reinterpret_cast<const std::byte*>(codes);
        args.panel_bytes = 512;
        args.panels = 1;
        args.k = 32;
        args.scales = &scale;
        args.scale_stride = 1;
        args.sums = sums.data() + r * 16;
        args.sums_stride = 16;
        args.scratch = scratch;
        backend->cpu->multiply(args);
      }
      for (int i = 0; i < 256; ++i) {
        if ((i & 0x7f) == 0x7f) continue;  // NaN: no checkpoint has it (kernels/weight.h)
        ASSERT_EQ(sums[i], F8E4M3ToFloat(static_cast<uint8_t>(i))) << "code " << i;
      }
    }
  }
}

// The order that MultiplyArgs promises, in plain scalar code: AMX sums this way, too.
TEST(CpuKernels, SumsRunInThePromisedOrder) {
  for (const Backend* backend : VectorBackends()) {
    Random random(7);
    const int64_t k = 96;
    std::vector<float> a(k);
    std::vector<float> w(k * 16);
    for (float& x : a) x = random.Normal();
    for (float& x : w) x = random.Normal();
    std::vector<float> sums(16, 0.25f);
    MultiplyArgs args;
    args.a = a.data();
    args.rows = 1;
    args.w = reinterpret_cast<const std::byte*>(w.data());
    args.panels = 1;
    args.k = k;
    args.sums = sums.data();
    backend->cpu->multiply(args);
    for (int64_t i = 0; i < 16; ++i) {
      float want = 0.25f;
      for (int64_t block = 0; block < k; block += 32) {
        float even = 0;
        float odd = 0;
        for (int64_t j = block; j < block + 32; j += 2) {
          even = std::fmaf(a[j], w[j * 16 + i], even);
          odd = std::fmaf(a[j + 1], w[(j + 1) * 16 + i], odd);
        }
        want += even + odd;
      }
      ASSERT_EQ(sums[i], want) << backend->name << " output " << i;
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
