#include "moe/balance/load_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moebius::moe {
namespace {

bool IsStarved(double count, double mean) { return count < kStarvedShare * mean; }

double MeanOf(std::span<const double> counts) {
  if (counts.empty()) return 0;
  return std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
}

// Half the mean difference of two experts, relative to the mean.
double Gini(std::span<const double> counts, double sum) {
  std::vector<double> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<double>(sorted.size());
  double weighted = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    weighted += (2 * static_cast<double>(i + 1) - n - 1) * sorted[i];
  }
  return weighted / (n * sum);
}

double NormalisedEntropy(std::span<const double> counts, double sum) {
  if (counts.size() < 2) return 1;
  double entropy = 0;
  for (const double count : counts) {
    if (count > 0) entropy -= count / sum * std::log(count / sum);
  }
  return entropy / std::log(static_cast<double>(counts.size()));
}

}  // namespace

double LoadMetrics::StarvedShare(size_t num_experts) const {
  return num_experts == 0 ? 0
                          : static_cast<double>(starved.size()) / static_cast<double>(num_experts);
}

bool LoadMetrics::HasCollapsed(size_t num_experts) const {
  return StarvedShare(num_experts) > kMostStarved || entropy < kLeastEntropy;
}

LoadMetrics Measure(std::span<const double> counts) {
  LoadMetrics metrics;
  metrics.mean = MeanOf(counts);
  if (metrics.mean <= 0) return metrics;
  const auto n = static_cast<double>(counts.size());
  const double sum = metrics.mean * n;
  double squares = 0;
  double num_active = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double count = counts[i];
    squares += (count - metrics.mean) * (count - metrics.mean);
    num_active += count > 0 ? 1 : 0;
    if (IsStarved(count, metrics.mean)) metrics.starved.push_back(static_cast<int32_t>(i));
    if (count > kDominantShare * metrics.mean) metrics.dominant.push_back(static_cast<int32_t>(i));
  }
  metrics.max = *std::max_element(counts.begin(), counts.end());
  metrics.std = n > 1 ? std::sqrt(squares / (n - 1)) : 0;
  metrics.active_share = num_active / n;
  metrics.max_over_mean = metrics.max / metrics.mean;
  metrics.balancedness = metrics.mean / metrics.max;
  metrics.cv = metrics.std / metrics.mean;
  metrics.gini = Gini(counts, sum);
  metrics.entropy = NormalisedEntropy(counts, sum);
  return metrics;
}

LoadMetrics Measure(std::span<const int64_t> counts) {
  const std::vector<double> real(counts.begin(), counts.end());
  return Measure(real);
}

double ExpectedActiveShare(int64_t num_experts, int64_t top_k, double num_tokens) {
  if (num_experts == 0) return 0;
  const double idle = 1 - static_cast<double>(top_k) / static_cast<double>(num_experts);
  return 1 - std::pow(idle, num_tokens);
}

double Divergence(std::span<const double> counts, std::span<const double> reference) {
  constexpr double kLeastShare = 1e-3;
  const double sum = MeanOf(counts) * static_cast<double>(counts.size());
  const double least = kLeastShare * MeanOf(reference);
  if (sum <= 0 || least <= 0) return 0;
  double reference_sum = 0;
  for (const double count : reference) reference_sum += std::max(count, least);
  double divergence = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] <= 0) continue;
    const double share = counts[i] / sum;
    divergence += share * std::log(share * reference_sum / std::max(reference[i], least));
  }
  return std::max(0.0, divergence);
}

std::vector<int32_t> StarvedExperts(std::span<const std::vector<double>> windows) {
  if (windows.empty()) return {};
  const size_t num_looked_at = std::min<size_t>(windows.size(), kStarvedWindows);
  const auto recent = windows.last(num_looked_at);
  std::vector<int32_t> starved;
  for (size_t expert = 0; expert < recent.front().size(); ++expert) {
    const bool is_starved = std::all_of(recent.begin(), recent.end(), [&](const auto& counts) {
      return IsStarved(counts[expert], MeanOf(counts));
    });
    if (is_starved) starved.push_back(static_cast<int32_t>(expert));
  }
  return starved;
}

}  // namespace moebius::moe
