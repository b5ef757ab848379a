#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moebius::model {
namespace {

double YarnMscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// The dimension whose wave turns `rotations` times within the original context.
double CorrectionDim(const RopeConfig& rope, double rotations, int64_t dim) {
  return static_cast<double>(dim) *
         std::log(static_cast<double>(rope.original_max_position) /
                  (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// Below `low` dimensions extrapolate, above `high` they interpolate, between they blend.
void ScaleYarn(const RopeConfig& rope, int64_t dim, std::vector<double>& frequencies) {
  double low = CorrectionDim(rope, rope.beta_fast, dim);
  double high = CorrectionDim(rope, rope.beta_slow, dim);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / rope.factor * ramp + frequencies[i] * (1 - ramp);
  }
}

void ScaleLlama3(const RopeConfig& rope, std::vector<double>& frequencies) {
  const auto original = static_cast<double>(rope.original_max_position);
  for (double& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength > original / rope.low_freq_factor) {
      frequency /= rope.factor;
    } else if (wavelength >= original / rope.high_freq_factor) {
      const double smooth = (original / wavelength - rope.low_freq_factor) /
                            (rope.high_freq_factor - rope.low_freq_factor);
      frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
    }
  }
}

}  // namespace

std::vector<float> RopeFrequencies(const RopeConfig& rope, int64_t dim) {
  std::vector<double> frequencies(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  }
  switch (rope.type) {
    case RopeType::kDefault:
      break;
    case RopeType::kLinear:
      for (double& frequency : frequencies) frequency /= rope.factor;
      break;
    case RopeType::kYarn:
      ScaleYarn(rope, dim, frequencies);
      break;
    case RopeType::kLlama3:
      ScaleLlama3(rope, frequencies);
      break;
  }
  return {frequencies.begin(), frequencies.end()};
}

double RopeAttentionFactor(const RopeConfig& rope) {
  if (rope.type != RopeType::kYarn) return 1.0;
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale != 0 && rope.mscale_all_dim != 0) {
    return YarnMscale(rope.factor, rope.mscale) / YarnMscale(rope.factor, rope.mscale_all_dim);
  }
  return YarnMscale(rope.factor, 1.0);
}

void FillRopeTable(const RopeConfig& rope, int64_t begin, int64_t end, Mat table) {
  const std::vector<float> frequencies = RopeFrequencies(rope, table.cols);
  const double factor = RopeAttentionFactor(rope);
  const auto half = static_cast<int64_t>(frequencies.size());
  for (int64_t p = begin; p < end; ++p) {
    float* row = table.Row<float>(p);
    for (int64_t i = 0; i < half; ++i) {
      // The angle is rounded to float32 first, as everywhere these models were trained and served.
      const double angle = static_cast<float>(p) * frequencies[static_cast<size_t>(i)];
      row[i] = static_cast<float>(std::cos(angle) * factor);
      row[half + i] = static_cast<float>(std::sin(angle) * factor);
    }
  }
}

float MlaSoftmaxScale(const RopeConfig& rope, int64_t qk_head_dim) {
  double scale = 1.0 / std::sqrt(static_cast<double>(qk_head_dim));
  if (rope.type != RopeType::kDefault && rope.mscale_all_dim != 0) {
    const double mscale = YarnMscale(rope.factor, rope.mscale_all_dim);
    scale *= mscale * mscale;
  }
  return static_cast<float>(scale);
}

void FillTemperatureTable(const AttentionConfig& attention, int64_t begin, int64_t end, Mat table) {
  for (int64_t p = begin; p < end; ++p) {
    const double steps = std::floor((static_cast<double>(p) + 1.0) / attention.floor_scale);
    table.Row<float>(p)[0] = static_cast<float>(std::log1p(steps) * attention.attn_scale + 1.0);
    table.Row<float>(p)[1] = 0.0f;
  }
}

}  // namespace moebius::model
