// Row operations against scalar loops in double precision.
#include <cstring>

#include "kernels/cuda/rows/rows.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using Bf16 = __nv_bfloat16;

template <typename T>
constexpr DType kDType = std::is_same_v<T, float> ? DType::kF32 : DType::kBF16;
template <typename T>
constexpr double kLimit = std::is_same_v<T, float> ? 2e-6 : 4e-3;

template <typename T>
DeviceRows Rows(const Device<T>& data, int64_t stride) {
  return {data.get(), kDType<T>, stride};
}
template <typename T>
std::string Name(const char* what, int64_t rows, int64_t cols) {
  return std::string(what) + (kDType<T> == DType::kF32 ? " float32 " : " bfloat16 ") +
         std::to_string(rows) + " x " + std::to_string(cols);
}

std::vector<int32_t> Positions(testing::Rng& rng, int64_t count, int32_t limit) {
  std::vector<int32_t> out(count);
  for (int32_t& x : out) x = static_cast<int32_t>(rng() % limit);
  return out;
}
std::vector<float> AngleTable(testing::Rng& rng, int64_t positions, int64_t dim) {
  std::vector<float> table(positions * dim);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < dim / 2; ++i) {
      const double angle = static_cast<double>(rng() % 10000) / 1000;
      table[p * dim + i] = static_cast<float>(std::cos(angle));
      table[p * dim + dim / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

// Rows of `stride` elements; what is behind `cols` must stay as it is.
template <typename T>
void ExpectPadding(const std::vector<T>& before, const std::vector<T>& after, int64_t cols,
                   int64_t stride, const std::string& name) {
  for (size_t i = 0; i < after.size(); ++i) {
    if (static_cast<int64_t>(i) % stride < cols) continue;
    const float a = testing::ToFloat(before[i]);
    const float b = testing::ToFloat(after[i]);
    if (!(a == b || (std::isnan(a) && std::isnan(b)))) {
      testing::Expect(false, name + ": wrote behind a row");
      return;
    }
  }
}

template <typename T>
void TestCopies(testing::Rng& rng, int64_t rows, int64_t cols) {
  const int64_t vocab = 50;
  const int64_t stride = cols + (cols % 2 == 0 ? 4 : 3);
  const auto table = testing::RandomNormal<Bf16>(rng, vocab * cols);
  std::vector<int32_t> tokens = Positions(rng, rows, vocab);
  if (rows > 2) tokens[1] = -1;
  const Device<Bf16> d_table(table);
  const Device<int32_t> d_tokens(tokens);
  Device<T> out(rows * stride);
  const auto poison = out.Download();
  CUDA_OK(LaunchEmbed({d_tokens.get(), Rows(d_table, cols), Rows(out, stride), vocab, rows, cols},
                      nullptr));
  const auto got = out.Download();
  const std::string name = Name<T>("embed", rows, cols);
  bool same = true;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < cols; ++c) {
      const float want = tokens[t] < 0 ? 0 : testing::ToFloat(table[tokens[t] * cols + c]);
      same = same && testing::ToFloat(got[t * stride + c]) == want;
    }
  }
  testing::Expect(same, name);
  ExpectPadding(poison, got, cols, stride, name);

  // Cache writes: rows shuffled, some skipped.
  std::vector<int64_t> cache_rows(rows);
  for (int64_t t = 0; t < rows; ++t) cache_rows[t] = t % 3 == 2 ? -1 : rows - t;
  const auto x = testing::RandomNormal<T>(rng, rows * stride);
  const Device<T> d_x(x);
  const Device<int64_t> d_rows(cache_rows);
  Device<Bf16> cache((rows + 1) * cols);
  CUDA_OK(LaunchKvWrite({Rows(d_x, stride), d_rows.get(), Rows(cache, cols), rows, cols}, nullptr));
  const auto written = cache.Download();
  std::vector<float> want((rows + 1) * cols, NAN);
  for (int64_t t = 0; t < rows; ++t) {
    if (cache_rows[t] < 0) continue;
    for (int64_t c = 0; c < cols; ++c) {
      want[cache_rows[t] * cols + c] =
          testing::ToFloat(__float2bfloat16(testing::ToFloat(x[t * stride + c])));
    }
  }
  same = true;
  for (size_t i = 0; i < want.size(); ++i) {
    const float w = testing::ToFloat(written[i]);
    same = same && (w == want[i] || (std::isnan(w) && std::isnan(want[i])));
  }
  testing::Expect(same, Name<T>("kv_write", rows, cols));

  const auto residual = testing::RandomNormal<float>(rng, rows * stride);
  Device<float> d_residual(residual);
  CUDA_OK(LaunchAdd({d_residual.get(), stride, Rows(d_x, stride), rows, cols}, nullptr));
  const auto sums = d_residual.Download();
  same = true;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < stride; ++c) {
      const int64_t i = t * stride + c;
      same = same && sums[i] == (c < cols ? residual[i] + testing::ToFloat(x[i]) : residual[i]);
    }
  }
  testing::Expect(same, Name<T>("add", rows, cols));
}

template <typename T>
double TestNorm(testing::Rng& rng, int64_t rows, int64_t cols, int64_t group, bool with_x,
                bool with_residual, bool with_weight) {
  const int64_t stride = cols + (cols % 2 == 0 ? 8 : 1);
  const int64_t width = group == 0 ? cols : group;
  const auto x = testing::RandomNormal<T>(rng, rows * stride, 3.0f);
  const auto residual = testing::RandomNormal<float>(rng, rows * cols);
  const auto weight = testing::RandomNormal<float>(rng, width);
  const Device<T> d_x(x);
  Device<float> d_residual(residual);
  const Device<float> d_weight(weight);
  Device<T> out(rows * stride);
  RmsNormLaunch args;
  if (with_x) args.x = Rows(d_x, stride);
  args.x.dtype = kDType<T>;
  if (with_residual) args.residual = d_residual.get();
  args.residual_stride = cols;
  if (with_weight) args.weight = d_weight.get();
  args.group = group;
  args.out = Rows(out, stride);
  args.rows = rows;
  args.cols = cols;
  CUDA_OK(LaunchRmsNorm(args, nullptr));
  const auto got = out.Download();
  const auto sums = d_residual.Download();
  std::vector<double> want;
  std::vector<T> values;
  bool same = true;
  for (int64_t t = 0; t < rows; ++t) {
    std::vector<double> v(cols);
    for (int64_t c = 0; c < cols; ++c) {
      const float xv = with_x ? testing::ToFloat(x[t * stride + c]) : 0.0f;
      const float sum = with_residual ? xv + residual[t * cols + c] : xv;
      if (with_residual) same = same && sums[t * cols + c] == sum;
      v[c] = sum;
    }
    for (int64_t begin = 0; begin < cols; begin += width) {
      double squares = 0;
      for (int64_t c = 0; c < width; ++c) squares += v[begin + c] * v[begin + c];
      const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + args.eps);
      for (int64_t c = 0; c < width; ++c) {
        want.push_back(v[begin + c] * factor * (with_weight ? weight[c] : 1.0));
        values.push_back(got[t * stride + begin + c]);
      }
    }
  }
  const std::string name = Name<T>("rms_norm", rows, cols) + " group " + std::to_string(group);
  testing::Expect(same, name + ": residual");
  const testing::Error error = testing::Compare(values, want);
  testing::ExpectClose(error, kLimit<T>, name);
  return error.relative;
}

struct RopeCase {
  int64_t rows, heads, stride, offset, dim;
  bool interleaved, deinterleave;
};

// In double: rotates head[0 .. dim) by the table's row.
void RotateHead(std::vector<double>& head, const float* angles, const RopeCase& c) {
  const std::vector<double> x = head;
  const int64_t half = c.dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const int64_t a = c.interleaved ? 2 * i : i;
    const int64_t b = c.interleaved ? 2 * i + 1 : i + half;
    const bool halves = !c.interleaved || c.deinterleave;
    head[halves ? i : a] = x[a] * angles[i] - x[b] * angles[i + half];
    head[halves ? i + half : b] = x[b] * angles[i] + x[a] * angles[i + half];
  }
}

template <typename T>
double TestRope(testing::Rng& rng, const RopeCase& c) {
  const int64_t limit = 40;
  const int64_t row = c.heads * c.stride + 5;
  const auto x = testing::RandomNormal<T>(rng, c.rows * row);
  const auto table = AngleTable(rng, limit, c.dim);
  const auto positions = Positions(rng, c.rows, limit);
  Device<T> d_x(x);
  const Device<float> d_table(table);
  const Device<int32_t> d_positions(positions);
  CUDA_OK(LaunchRope({Rows(d_x, row), c.rows, c.heads, c.stride, c.offset, c.dim, c.interleaved,
                      c.deinterleave, d_positions.get(), d_table.get()},
                     nullptr));
  std::vector<double> want(x.size());
  for (size_t i = 0; i < x.size(); ++i) want[i] = testing::ToFloat(x[i]);
  for (int64_t t = 0; t < c.rows; ++t) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const auto begin = want.begin() + t * row + h * c.stride + c.offset;
      std::vector<double> head(begin, begin + c.dim);
      RotateHead(head, table.data() + positions[t] * c.dim, c);
      std::copy(head.begin(), head.end(), begin);
    }
  }
  const testing::Error error = testing::Compare(d_x.Download(), want);
  testing::ExpectClose(error, kLimit<T>, Name<T>("rope", c.rows, c.dim));
  return error.relative;
}

template <typename T>
double TestMlaKvWrite(testing::Rng& rng, const RopeCase& c, int64_t latent) {
  const int64_t width = latent + c.dim;
  const int64_t stride = width + 64;
  const auto x = testing::RandomNormal<T>(rng, c.rows * stride, 2.0f);
  const auto table = AngleTable(rng, 64, c.dim);
  const auto positions = Positions(rng, c.rows, 64);
  const auto weight = testing::RandomNormal<float>(rng, latent);
  std::vector<int64_t> cache_rows(c.rows);
  for (int64_t t = 0; t < c.rows; ++t) cache_rows[t] = t % 4 == 3 ? -1 : c.rows - 1 - t;
  const Device<T> d_x(x);
  const Device<float> d_table(table);
  const Device<float> d_weight(weight);
  const Device<int32_t> d_positions(positions);
  const Device<int64_t> d_rows(cache_rows);
  Device<Bf16> cache(c.rows * width);
  MlaKvWriteLaunch args;
  args.x = Rows(d_x, stride);
  args.rows = c.rows;
  args.latent = latent;
  args.rope = c.dim;
  args.weight = d_weight.get();
  args.interleaved = c.interleaved;
  args.deinterleave = c.deinterleave;
  args.positions = d_positions.get();
  args.table = d_table.get();
  args.cache_rows = d_rows.get();
  args.cache = Rows(cache, width);
  CUDA_OK(LaunchMlaKvWrite(args, nullptr));
  const auto got = cache.Download();
  std::vector<double> want;
  std::vector<Bf16> values;
  for (int64_t t = 0; t < c.rows; ++t) {
    if (cache_rows[t] < 0) {
      testing::Expect(std::isnan(testing::ToFloat(got[(c.rows - 1 - t) * width])),
                      "mla_kv_write: a skipped row was written");
      continue;
    }
    std::vector<double> row(width);
    for (int64_t i = 0; i < width; ++i) row[i] = testing::ToFloat(x[t * stride + i]);
    double squares = 0;
    for (int64_t i = 0; i < latent; ++i) squares += row[i] * row[i];
    const double factor = 1 / std::sqrt(squares / static_cast<double>(latent) + args.eps);
    for (int64_t i = 0; i < latent; ++i) row[i] *= factor * weight[i];
    std::vector<double> head(row.begin() + latent, row.end());
    RotateHead(head, table.data() + positions[t] * c.dim, c);
    std::copy(head.begin(), head.end(), row.begin() + latent);
    for (int64_t i = 0; i < width; ++i) {
      want.push_back(row[i]);
      values.push_back(got[cache_rows[t] * width + i]);
    }
  }
  const testing::Error error = testing::Compare(values, want);
  testing::ExpectClose(error, kLimit<Bf16>, Name<T>("mla_kv_write", c.rows, width));
  return error.relative;
}

// Queries beside are normed to the bits of a norm alone, and nothing else is another: a graph of
// layers that change the same rows one after the other, against launches that wait.
template <typename T>
void TestQueriesBeside(testing::Rng& rng, int64_t rows, int64_t queries) {
  constexpr int kLayers = 20;
  constexpr int64_t kLatent = 512;
  constexpr int64_t kRope = 64;
  const int64_t stride = queries + kLatent + kRope;
  const auto x = testing::RandomNormal<T>(rng, rows * stride, 2.0f);
  const Device<float> table(AngleTable(rng, 64, kRope));
  const Device<int32_t> positions(Positions(rng, rows, 64));
  const Device<float> weight(testing::RandomNormal<float>(rng, kLatent));
  const Device<float> query_weight(testing::RandomNormal<float>(rng, queries));
  std::vector<int64_t> cache_rows(rows);
  for (int64_t t = 0; t < rows; ++t) cache_rows[t] = t % 4 == 3 ? -1 : rows - 1 - t;
  const Device<int64_t> d_rows(cache_rows);
  const auto launch = [&](const Device<T>& d_x, const Device<Bf16>& cache, bool beside,
                          cudaStream_t stream) {
    MlaKvWriteLaunch args;
    args.x = Rows(d_x, stride);
    args.x.data = d_x.get() + queries;
    args.rows = rows;
    args.weight = weight.get();
    args.interleaved = true;
    args.positions = positions.get();
    args.table = table.get();
    args.cache_rows = d_rows.get();
    args.cache = Rows(cache, kLatent + kRope);
    RmsNormLaunch norm;
    norm.x = Rows(d_x, stride);
    norm.weight = query_weight.get();
    norm.out = norm.x;
    norm.rows = rows;
    norm.cols = queries;
    if (beside) {
      args.queries = norm.x;
      args.query_cols = queries;
      args.query_weight = norm.weight;
      args.query_eps = norm.eps;
    } else {
      CUDA_OK(LaunchRmsNorm(norm, stream));
      CUDA_OK(cudaStreamSynchronize(stream));
    }
    CUDA_OK(LaunchMlaKvWrite(args, stream));
  };
  const Device<T> want(x), got(x);
  const Device<Bf16> want_cache(rows * (kLatent + kRope)), got_cache(rows * (kLatent + kRope));
  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  for (int layer = 0; layer < kLayers; ++layer) launch(want, want_cache, false, stream);
  CUDA_OK(cudaStreamSynchronize(stream));
  for (int layer = 0; layer < kLayers; ++layer) launch(got, got_cache, true, stream);
  CUDA_OK(cudaStreamSynchronize(stream));
  cudaStreamDestroy(stream);
  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(a.Download().data(), b.Download().data(), a.bytes()) == 0;
  };
  const std::string name = Name<T>("queries beside latents", rows, queries);
  testing::Expect(same(got, want), name + ": queries");
  testing::Expect(same(got_cache, want_cache), name + ": cache");
}

template <typename T>
void TestAll(testing::Rng& rng) {
  for (const int64_t rows : {0, 1, 7, 130}) {
    for (const int64_t cols : {1, 33, 576, 2048, 7168}) TestCopies<T>(rng, rows, cols);
  }
  double norm = 0;
  for (const int64_t rows : {0, 1, 5, 64}) {
    for (const int64_t cols : {8, 100, 1536, 2048, 7168, 8192, 16384, 20000, 77}) {
      for (int flags = 1; flags < 8; ++flags) {
        if ((flags & 3) == 0) continue;
        norm = std::max(norm, TestNorm<T>(rng, rows, cols, 0, flags & 1, flags & 2, flags & 4));
      }
    }
    for (const int64_t group : {64, 128, 24}) {
      norm = std::max(norm, TestNorm<T>(rng, rows, group * 9, group, true, false, true));
      norm = std::max(norm, TestNorm<T>(rng, rows, group * 9, group, true, true, false));
    }
  }
  double rope = 0;
  for (int kind = 0; kind < 3; ++kind) {
    for (const int64_t rows : {0, 1, 65}) {
      for (const int64_t dim : {2, 64, 128, 96, 1024}) {
        const RopeCase c = {rows, dim > 128 ? 2 : 11, dim + 40, 24, dim, kind > 0, kind == 2};
        rope = std::max(rope, TestRope<T>(rng, c));
        if (dim > 256) continue;
        rope = std::max(rope, TestMlaKvWrite<T>(rng, c, 512));
        rope = std::max(rope, TestMlaKvWrite<T>(rng, c, 100));
      }
    }
  }
  for (const int64_t rows : {1, 3, 130}) {
    for (const int64_t queries : {1536, 77, 256, 4096, 4100}) {
      TestQueriesBeside<T>(rng, rows, queries);
    }
  }
  std::printf("%s: worst relative error: rms_norm %.2e, rope and cache write %.2e\n",
              kDType<T> == DType::kF32 ? "float32" : "bfloat16", norm, rope);
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  testing::Rng rng(std::random_device{}());
  TestAll<float>(rng);
  TestAll<__nv_bfloat16>(rng);
  return testing::Finish("rows_test");
}
