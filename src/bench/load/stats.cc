#include "bench/load/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moebius::load {

double Percentile(std::span<const double> sorted, double percent) {
  if (sorted.empty()) return 0;
  const double at = std::clamp(percent, 0.0, 100.0) / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

double Mean(std::span<const double> samples) {
  if (samples.empty()) return 0;
  return std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
}

double StandardDeviation(std::span<const double> samples) {
  if (samples.empty()) return 0;
  const double mean = Mean(samples);
  double sum = 0;
  for (const double sample : samples) sum += (sample - mean) * (sample - mean);
  return std::sqrt(sum / static_cast<double>(samples.size()));
}

Distribution Describe(std::vector<double> samples) {
  Distribution d;
  if (samples.empty()) return d;
  std::sort(samples.begin(), samples.end());
  d.n = static_cast<int64_t>(samples.size());
  d.mean = Mean(samples);
  d.std = StandardDeviation(samples);
  d.min = samples.front();
  d.p50 = Percentile(samples, 50);
  d.p90 = Percentile(samples, 90);
  d.p95 = Percentile(samples, 95);
  d.p99 = Percentile(samples, 99);
  d.max = samples.back();
  return d;
}

double StudentT975(int64_t degrees) {
  constexpr double kTable[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706,
                               2.4469,  2.3646, 2.3060, 2.2622, 2.2281};
  if (degrees < 1) return kTable[0];
  if (degrees <= 10) return kTable[degrees - 1];
  // The expansion of t's quantile by powers of 1/degrees around the normal one, z.
  constexpr double kZ = 1.959964;
  const auto n = static_cast<double>(degrees);
  const double z3 = kZ * kZ * kZ;
  const double z5 = z3 * kZ * kZ;
  const double z7 = z5 * kZ * kZ;
  return kZ + (z3 + kZ) / (4 * n) + (5 * z5 + 16 * z3 + 3 * kZ) / (96 * n * n) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * kZ) / (384 * n * n * n);
}

std::optional<Slope> FitSlope(std::span<const double> x, std::span<const double> y) {
  const size_t n = std::min(x.size(), y.size());
  if (n < 3) return std::nullopt;
  const double mean_x = Mean(x.first(n));
  const double mean_y = Mean(y.first(n));
  double xx = 0;
  double xy = 0;
  for (size_t i = 0; i < n; ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  if (xx <= 0) return std::nullopt;
  Slope fit;
  fit.slope = xy / xx;
  double rest = 0;
  for (size_t i = 0; i < n; ++i) {
    const double off = y[i] - mean_y - fit.slope * (x[i] - mean_x);
    rest += off * off;
  }
  const auto degrees = static_cast<double>(n - 2);
  const double error = std::sqrt(rest / degrees / xx);
  const double half = StudentT975(static_cast<int64_t>(n) - 2) * error;
  fit.low = fit.slope - half;
  fit.high = fit.slope + half;
  return fit;
}

}  // namespace moebius::load
