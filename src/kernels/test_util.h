// What the tests of operations share: strided matrices whose surroundings are watched, packed
// random weights, a context a back end, and the comparison with the reference.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/latent_row.h"
#include "kernels/ops.h"

namespace moebius::kernels {

// Reproducible numbers for one test.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  float Normal(float scale = 1.0f) { return scale * normal_(engine_); }
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// A matrix in memory of its own, poisoned at first: 0xff bytes (NaN) inside, 0xab around.
class TestMat {
 public:
  TestMat(DType dtype, int64_t rows, int64_t cols, int64_t gap = 0)
      : bytes_((rows * (cols + gap) + 2 * kGuard) * static_cast<int64_t>(SizeOf(dtype)), 0xab) {
    view_ = Mat(bytes_.data() + kGuard * static_cast<int64_t>(SizeOf(dtype)), dtype, rows, cols,
                cols + gap);
    Poison();
  }
  TestMat(const TestMat& other) : bytes_(other.bytes_), view_(other.view_) {
    view_.data = bytes_.data() + kGuard * static_cast<int64_t>(SizeOf(view_.dtype));
  }
  TestMat& operator=(const TestMat&) = delete;

  const Mat& view() const { return view_; }
  void Poison() {
    for (int64_t r = 0; r < view_.rows; ++r) std::memset(view_.RowBytes(r), 0xff, RowSize());
  }
  TestMat& Fill(Random& random, float scale = 1.0f) {
    for (int64_t r = 0; r < view_.rows; ++r) {
      for (int64_t c = 0; c < view_.cols; ++c) Set(r, c, random.Normal(scale));
    }
    return *this;
  }
  float At(int64_t r, int64_t c) const { return LoadFloat(view_.RowBytes(r), view_.dtype, c); }
  void Set(int64_t r, int64_t c, float x) { StoreFloat(view_.RowBytes(r), view_.dtype, c, x); }
  std::vector<uint8_t> RowCopy(int64_t r) const {
    const auto* begin = reinterpret_cast<const uint8_t*>(view_.RowBytes(r));
    return {begin, begin + RowSize()};
  }
  // True if nothing outside the view was written.
  bool Untouched() const {
    std::vector<bool> inside(bytes_.size());
    for (int64_t r = 0; r < view_.rows; ++r) {
      const auto begin = reinterpret_cast<const uint8_t*>(view_.RowBytes(r)) - bytes_.data();
      std::fill_n(inside.begin() + begin, RowSize(), true);
    }
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (!inside[i] && bytes_[i] != 0xab) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kGuard = 64;
  size_t RowSize() const { return static_cast<size_t>(view_.cols) * SizeOf(view_.dtype); }

  std::vector<uint8_t> bytes_;
  Mat view_;
};

// Random weights in a packed format, about 1 / sqrt(k) large.
class TestWeight {
 public:
  TestWeight(WeightFormat format, int64_t n, int64_t k, bool gated, Random& random)
      : memory_(PackedBytes(format, n, k, gated) + 64) {
    const auto begin = reinterpret_cast<uintptr_t>(memory_.data());
    void* dst = memory_.data() + (64 - begin % 64) % 64;
    const WeightSource gate = Source(format, n, k, random, 0);
    packed_ = gated ? PackGated(format, gate, Source(format, n, k, random, 1), dst)
                    : Pack(format, gate, dst);
  }
  TestWeight(TestWeight&&) = default;
  const PackedWeight& packed() const { return packed_; }

 private:
  WeightSource Source(WeightFormat format, int64_t n, int64_t k, Random& random, int half) {
    const DType dtype = format == WeightFormat::kF32    ? DType::kF32
                        : format == WeightFormat::kBF16 ? DType::kBF16
                                                        : DType::kF8E4M3;
    const float scale = 1.0f / std::sqrt(static_cast<float>(k));
    values_[half].resize(static_cast<size_t>(n * k) * SizeOf(dtype));
    WeightSource source;
    source.data = values_[half].data();
    source.dtype = dtype;
    source.n = n;
    source.k = k;
    source.n_stride = k;
    for (int64_t i = 0; i < n * k; ++i) {
      if (dtype == DType::kF8E4M3) {
        // Every code but NaN, so denormals too.
        uint8_t code = static_cast<uint8_t>(random.Below(256));
        if ((code & 0x7f) == 0x7f) code = 0;
        values_[half][i] = code;
      } else {
        StoreFloat(values_[half].data(), dtype, i, random.Normal(scale));
      }
    }
    if (dtype != DType::kF8E4M3) return source;
    const int64_t rows = (n + 127) / 128;
    const int64_t cols = (k + 127) / 128;
    for (int64_t i = 0; i < rows * cols; ++i) {
      scales_[half].push_back(scale / 64 * (1 + static_cast<float>(random.Below(100)) / 50));
    }
    source.scales = Mat(scales_[half].data(), DType::kF32, rows, cols);
    return source;
  }

  std::vector<uint8_t> values_[2];
  std::vector<float> scales_[2];
  std::vector<uint8_t> memory_;
  PackedWeight packed_;
};

// A context on a back end, with threads and a workspace of the size that OpWorkspaceBytes promises;
// made once for each pair, as a rank does.
class TestContext {
 public:
  explicit TestContext(const Backend* backend, int num_threads = 1)
      : resources_(Shared(num_threads)), ctx_{backend, resources_.pool.get(), &resources_.arena} {}
  ExecContext& ctx() { return ctx_; }

 private:
  struct Resources {
    explicit Resources(int num_threads) {
      OpLimits limits;
      limits.num_threads = num_threads;
      limits.num_slots = 512;
      limits.head_dim = 576;
      limits.v_head_dim = 512;
      limits.vocab = 60000;
      memory.resize(OpWorkspaceBytes(limits) + 64, 0xff);
      const auto begin = reinterpret_cast<uintptr_t>(memory.data());
      arena = Arena(memory.data() + (64 - begin % 64) % 64, memory.size() - 64);
      const std::vector<int> allowed = platform::AllowedCpus();
      std::vector<int> cpus;
      for (int i = 0; i < num_threads; ++i) cpus.push_back(allowed[i % allowed.size()]);
      pool = platform::ThreadPool::Create(cpus);
    }
    std::vector<uint8_t> memory;
    Arena arena;
    std::unique_ptr<platform::ThreadPool> pool;
  };
  static Resources& Shared(int num_threads) {
    static std::map<int, Resources> all;
    return all.try_emplace(num_threads, num_threads).first->second;
  }

  Resources& resources_;
  ExecContext ctx_;
};

// MLA's cache in fp8, of rows [latent | rope]; and its rows in float32.
inline TestMat Fp8Latents(const TestMat& rows, int64_t latent_dim) {
  const Mat& from = rows.view();
  const LatentRow layout = {latent_dim, from.cols - latent_dim};
  TestMat cache(DType::kF8E4M3, from.rows, layout.bytes());
  for (int64_t r = 0; r < from.rows; ++r) {
    StoreLatentRow(layout, from.RowBytes(r), from.dtype, cache.view().RowBytes(r));
  }
  return cache;
}
inline TestMat WidenedLatents(const TestMat& cache, int64_t latent_dim, int64_t rope_dim) {
  TestMat rows(DType::kF32, cache.view().rows, latent_dim + rope_dim);
  for (int64_t r = 0; r < rows.view().rows; ++r) {
    LoadLatentRow({latent_dim, rope_dim}, cache.view().RowBytes(r), rows.view().Row<float>(r));
  }
  return rows;
}

// The back ends that are compared with the reference.
inline std::vector<const Backend*> VectorBackends() {
  std::vector<const Backend*> result;
  for (const Backend* backend : AvailableBackends()) {
    if (backend != &RefBackend()) result.push_back(backend);
  }
  return result;
}

// got = want within rounding: float32 sums within 1e-5 of the largest value, bfloat16 within one
// unit in the last place beyond that.
inline void ExpectNear(const TestMat& got, const TestMat& want, const std::string& what,
                       float tolerance = 1e-5f) {
  float largest = 1e-30f;
  for (int64_t r = 0; r < want.view().rows; ++r) {
    for (int64_t c = 0; c < want.view().cols; ++c) {
      if (std::isfinite(want.At(r, c))) largest = std::max(largest, std::fabs(want.At(r, c)));
    }
  }
  for (int64_t r = 0; r < want.view().rows; ++r) {
    for (int64_t c = 0; c < want.view().cols; ++c) {
      const float w = want.At(r, c);
      const float g = got.At(r, c);
      if (std::isnan(w) && std::isnan(g)) continue;
      const float ulp = want.view().dtype == DType::kBF16 ? std::fabs(w) / 128 : 0.0f;
      ASSERT_NEAR(g, w, tolerance * largest + ulp) << what << " at row " << r << ", column " << c;
    }
  }
  EXPECT_TRUE(got.Untouched()) << what << " wrote outside its output";
}

// Row `got_row` of `got` and row `want_row` of `want` are the same bits.
inline void ExpectSameRow(const TestMat& got, int64_t got_row, const TestMat& want,
                          int64_t want_row, const std::string& what) {
  ASSERT_EQ(got.RowCopy(got_row), want.RowCopy(want_row)) << what << ", row " << want_row;
}

constexpr DType kActs[] = {DType::kF32, DType::kBF16};
constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kBF16,
                                     WeightFormat::kFp8Block};

}  // namespace moebius::kernels
