// Weighted sums of experts' rows against scalar loops, and with the norm behind them against both
// launches.
#include <cstring>
#include <numeric>

#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

std::vector<int32_t> ShuffledPlaces(testing::Rng& rng, int count) {
  std::vector<int32_t> places(count);
  std::iota(places.begin(), places.end(), 0);
  std::shuffle(places.begin(), places.end(), rng);
  for (int32_t& p : places) {
    if (rng() % 6 == 0) p = -1;
  }
  return places;
}

template <typename T>
double TestReduce(testing::Rng& rng, int rows, int cols, int k, bool weighted, bool shared) {
  constexpr DType kType = std::is_same_v<T, float> ? DType::kF32 : DType::kBF16;
  const int num_places = std::max(1, rows * k);
  const int stride = cols + (cols % 4 == 0 ? 8 : 0);
  const auto in = testing::RandomNormal<T>(rng, static_cast<size_t>(num_places) * stride);
  const auto extra = testing::RandomNormal<T>(rng, static_cast<size_t>(rows) * stride);
  const auto weights = testing::RandomNormal<float>(rng, rows * k);
  const std::vector<int32_t> places = ShuffledPlaces(rng, rows * k);
  const Device<T> d_in(in), d_extra(extra);
  const Device<float> d_weights(weights);
  const Device<int32_t> d_places(places);
  Device<T> out(static_cast<size_t>(rows) * cols);
  WeightedReduceLaunch args;
  args.in = {d_in.get(), kType, stride};
  args.places = d_places.get();
  if (weighted) args.weights = d_weights.get();
  args.k = k;
  if (shared) args.shared = {d_extra.get(), kType, stride};
  args.out = {out.get(), kType, cols};
  args.rows = rows;
  args.cols = cols;
  CUDA_OK(LaunchWeightedReduce(args, nullptr));
  std::vector<double> want(static_cast<size_t>(rows) * cols, 0.0);
  for (int t = 0; t < rows; ++t) {
    for (int c = 0; c < cols; ++c) {
      double& sum = want[static_cast<size_t>(t) * cols + c];
      for (int j = 0; j < k; ++j) {
        const int place = places[t * k + j];
        if (place < 0) continue;
        sum += (weighted ? weights[t * k + j] : 1.0) *
               testing::ToFloat(in[static_cast<size_t>(place) * stride + c]);
      }
      if (shared) sum += testing::ToFloat(extra[static_cast<size_t>(t) * stride + c]);
    }
  }
  const testing::Error error = testing::Compare(out.Download(), want);
  // Few sums may all nearly cancel.
  const double exact = rows * cols < 1000 ? 1e-4 : 2e-6;
  testing::ExpectClose(error, kType == DType::kF32 ? exact : 4e-3 + exact,
                       "weighted_reduce " + std::to_string(rows) + " x " + std::to_string(cols));
  return error.relative;
}

template <typename T>
bool AreSameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// One launch against the two that it stands for, bit by bit.
template <typename T>
void TestReduceAndNorm(testing::Rng& rng, int rows, int cols, int k, bool weighted, bool shared) {
  constexpr DType kType = std::is_same_v<T, float> ? DType::kF32 : DType::kBF16;
  const size_t size = static_cast<size_t>(rows) * cols;
  const Device<T> in(testing::RandomNormal<T>(rng, static_cast<size_t>(rows) * k * cols));
  const Device<T> extra(testing::RandomNormal<T>(rng, size));
  const Device<float> weights(testing::RandomNormal<float>(rng, rows * k));
  const Device<float> norm_weight(testing::RandomNormal<float>(rng, cols));
  const Device<int32_t> places(ShuffledPlaces(rng, rows * k));
  const auto stream = testing::RandomNormal<float>(rng, size, 3.0f);
  Device<T> delta(size);
  WeightedReduceLaunch sum;
  sum.in = {in.get(), kType, cols};
  sum.places = places.get();
  if (weighted) sum.weights = weights.get();
  sum.k = k;
  if (shared) sum.shared = {extra.get(), kType, cols};
  sum.out = {delta.get(), kType, cols};
  sum.rows = rows;
  sum.cols = cols;
  const auto normed = [&](bool joined) {
    Device<float> residual(stream);
    Device<T> out(size);
    RmsNormLaunch norm;
    norm.x = sum.out;
    norm.residual = residual.get();
    norm.residual_stride = cols;
    norm.weight = norm_weight.get();
    norm.out = {out.get(), kType, cols};
    norm.rows = rows;
    norm.cols = cols;
    const bool fits = FitsReduceAndNorm(sum, norm);
    testing::Expect(fits == (cols <= 2048), "reduce_and_norm: which widths it takes");
    if (joined && fits) {
      CUDA_OK(LaunchReduceAndNorm(sum, norm, nullptr));
    } else {
      CUDA_OK(LaunchWeightedReduce(sum, nullptr));
      CUDA_OK(LaunchRmsNorm(norm, nullptr));
    }
    return std::pair(residual.Download(), out.Download());
  };
  const auto got = normed(true);
  const auto want = normed(false);
  const std::string name = "reduce_and_norm " + std::to_string(rows) + " x " +
                           std::to_string(cols) + ", " + std::to_string(k) + " choices";
  testing::Expect(AreSameBits(got.first, want.first), name + ": residual");
  testing::Expect(AreSameBits(got.second, want.second), name + ": norm");
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  testing::Rng rng(std::random_device{}());
  double worst = 0;
  for (const int rows : {0, 1, 19, 130}) {
    for (const int cols : {1, 63, 2048, 7168}) {
      for (const int k : {1, 6, 8, 10, 70}) {
        const bool flag = (rows + k) % 2 == 0;
        worst = std::max(worst, TestReduce<__nv_bfloat16>(rng, rows, cols, k, true, flag));
        worst = std::max(worst, TestReduce<float>(rng, rows, cols, k, flag, !flag));
      }
    }
    for (const int cols : {4, 60, 516, 1028, 1536, 2044, 2048, 2052}) {
      for (const int k : {1, 8, 10, 40}) {
        const bool flag = (rows + k) % 2 == 0;
        TestReduceAndNorm<__nv_bfloat16>(rng, rows, cols, k, true, flag);
        TestReduceAndNorm<float>(rng, rows, cols, k, flag, !flag);
      }
    }
  }
  std::printf("weighted_reduce: worst relative error %.2e\n", worst);
  return testing::Finish("reduce_test");
}
