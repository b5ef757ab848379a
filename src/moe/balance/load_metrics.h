// How evenly tokens fall on the experts of one layer, in the figures that reports and metrics show.
// Pure functions of the tokens that each expert got in a window; any thread. A window should hold
// 100 tokens an expert or more: with fewer, chance alone looks like imbalance.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moebius::moe {

// An expert with less than this times the mean is starved, with more than that dominant.
inline constexpr double kStarvedShare = 0.1;
inline constexpr double kDominantShare = 8;
// Windows in a row that an expert must be starved in.
inline constexpr int kStarvedWindows = 3;
// A layer has collapsed where more of its experts are starved, or its entropy is lower.
inline constexpr double kMostStarved = 0.05;
inline constexpr double kLeastEntropy = 0.8;
// A layer whose loads diverge more from those of a reference is routed differently.
inline constexpr double kMostDivergence = 0.05;

// Of a window without tokens: what an even one has, but that no expert is active.
struct LoadMetrics {
  double mean = 0;
  double max = 0;
  double std = 0;           // of a sample: n - 1
  double active_share = 0;  // effective expert ratio: experts with any token / experts
  double max_over_mean = 1;
  double balancedness = 1;  // mean / max
  double cv = 0;            // std / mean
  double gini = 0;          // 0: even; 1: all on one
  double entropy = 1;       // H / ln(experts): 1: even; 0: all on one
  std::vector<int32_t> starved;
  std::vector<int32_t> dominant;

  // The collapse index: starved experts / experts.
  double StarvedShare(size_t num_experts) const;
  bool HasCollapsed(size_t num_experts) const;
};

// `counts`: tokens by expert, none negative. Starved: in this window.
LoadMetrics Measure(std::span<const double> counts);
LoadMetrics Measure(std::span<const int64_t> counts);

// The share of experts that get any token where a router takes top_k of them at random, the same
// for each: what active_share is to be compared with.
double ExpectedActiveShare(int64_t num_experts, int64_t top_k, double num_tokens);

// KL(counts || reference) of the shares of experts, in nats: 0 where both are alike. An expert that
// the reference hardly took counts there as a thousandth of the mean: else it would be infinite.
// Without tokens on either side 0.
double Divergence(std::span<const double> counts, std::span<const double> reference);

// `windows`: by window the tokens of each expert, the oldest first. The experts that were starved
// in each of the last kStarvedWindows; with fewer windows, in all there are.
std::vector<int32_t> StarvedExperts(std::span<const std::vector<double>> windows);

}  // namespace moebius::moe
