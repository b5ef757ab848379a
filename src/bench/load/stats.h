// Statistics of samples: what every figure of a benchmark is made of. Plain functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace moebius::load {

// The value below which `percent` of `sorted` lies, by linear interpolation between neighbours (as
// NumPy's default); 0 without samples.
double Percentile(std::span<const double> sorted, double percent);

double Mean(std::span<const double> samples);               // 0 without samples
double StandardDeviation(std::span<const double> samples);  // of the population, as NumPy's

struct Distribution {
  int64_t n = 0;
  double mean = 0;
  double std = 0;
  double min = 0;
  double p50 = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
  double max = 0;
};
// Of samples in any order; all 0 without any.
Distribution Describe(std::vector<double> samples);

// 97.5 % of Student's t with `degrees` >= 1 of freedom lies below this: half the width of a 95 %
// interval in standard errors.
double StudentT975(int64_t degrees);

// A straight line through points by least squares, and the 95 % confidence interval of its slope.
struct Slope {
  double slope = 0;  // of y by x
  double low = 0;
  double high = 0;
};
// None with fewer than three points or where all x are the same.
std::optional<Slope> FitSlope(std::span<const double> x, std::span<const double> y);

}  // namespace moebius::load
