// What attention's benchmarks are checked against: one head of one query, on the host in float64.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {

inline std::vector<float> ReadFloats(const __nv_bfloat16* from, int64_t count) {
  std::vector<__nv_bfloat16> raw(count);
  CUDA_OK(cudaMemcpy(raw.data(), from, count * sizeof(raw[0]), cudaMemcpyDeviceToHost));
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = __bfloat162float(raw[i]);
  return values;
}

// keys [n, key_stride] of which q.size() columns count, values [n, value_stride] of which `width`.
inline std::vector<double> AttendOnHost(const std::vector<float>& q, const std::vector<float>& keys,
                                        int64_t key_stride, const std::vector<float>& values,
                                        int64_t value_stride, int64_t width, double scale) {
  const int64_t count = static_cast<int64_t>(keys.size()) / key_stride;
  std::vector<double> weights(count);
  double most = -INFINITY;
  for (int64_t p = 0; p < count; ++p) {
    double score = 0;
    for (size_t c = 0; c < q.size(); ++c) score += double{q[c]} * keys[p * key_stride + c];
    weights[p] = score * scale;
    most = std::max(most, weights[p]);
  }
  double sum = 0;
  std::vector<double> out(width);
  for (int64_t p = 0; p < count; ++p) {
    const double weight = std::exp(weights[p] - most);
    sum += weight;
    for (int64_t c = 0; c < width; ++c) out[c] += weight * values[p * value_stride + c];
  }
  for (double& x : out) x /= sum;
  return out;
}

// Products of bfloat16, added up in float32.
inline bool IsCloseTo(const std::vector<float>& got, const std::vector<double>& want) {
  constexpr double kTolerance = 2e-2;
  const testing::Error error = testing::Compare(got, want);
  return error.relative <= kTolerance;  // NaN is not
}

}  // namespace moebius::kernels::cuda
