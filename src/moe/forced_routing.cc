#include "moe/forced_routing.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "kernels/random.h"

namespace moebius::moe {

namespace {

constexpr double kMostZipf = 10;
constexpr double kMostHot = 64;

std::optional<double> NumberBehind(std::string_view prefix, const std::string& text) {
  if (!text.starts_with(prefix)) return std::nullopt;
  const std::string number = text.substr(prefix.size());
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0') return std::nullopt;
  return value;
}

// Experts of the first rank that a token draws in the mean.
double HotDraws(const RoutingSpec& spec, const RoutedExperts& experts) {
  return spec.hot_factor * experts.top_k / experts.num_ranks;
}

// How many times as likely as another one each expert of the first rank must be. Of draws without
// replacement, with n of N experts of weight w and the others of weight 1, h and k - h are drawn in
// the mean where (1 - h / n)^(1 / w) = 1 - (k - h) / (N - n) (Wallenius' distribution: Manly,
// 1974).
double HotWeight(const RoutingSpec& spec, const RoutedExperts& experts) {
  if (spec.hot_factor == 1 || experts.num_ranks == 1) return 1;
  const double hot = HotDraws(spec, experts);
  const double num_hot = static_cast<double>(experts.num_experts) / experts.num_ranks;
  const double num_others = experts.num_experts - num_hot;
  return std::log1p(-hot / num_hot) / std::log1p(-(experts.top_k - hot) / num_others);
}

}  // namespace

Result<RoutingSpec> ParseRouting(const std::string& text) {
  if (text == "uniform") return RoutingSpec();
  if (const auto exponent = NumberBehind("zipf:", text);
      exponent && *exponent >= 0 && *exponent <= kMostZipf) {
    return RoutingSpec{.zipf_exponent = *exponent};
  }
  if (const auto factor = NumberBehind("hot:", text);
      factor && *factor >= 1 && *factor <= kMostHot) {
    return RoutingSpec{.hot_factor = *factor};
  }
  return MakeError(
      ErrorCode::kInvalidArgument,
      "--routing is '{}', expected uniform, zipf:A with A from 0 to {} or hot:F with F "
      "from 1 to {}",
      text, kMostZipf, kMostHot);
}

Status CheckRouting(const RoutingSpec& spec, const RoutedExperts& experts) {
  if (spec.hot_factor == 1 || experts.num_experts == 0) return {};
  const int of_rank = experts.num_experts / experts.num_ranks;
  if (experts.num_ranks > 1 && experts.num_experts % experts.num_ranks == 0 &&
      HotDraws(spec, experts) < std::min(of_rank, experts.top_k)) {
    return {};
  }
  return MakeError(
      ErrorCode::kInvalidArgument,
      "--routing is hot:{}, expected several expert parallel ranks of which one can be "
      "so hot: there are {} with {} experts, of which a token has {}",
      spec.hot_factor, experts.num_ranks, of_rank, experts.top_k);
}

ForcedRouting::ForcedRouting(const RoutingSpec& spec, const RoutedExperts& experts)
    : num_experts_(experts.num_experts),
      log_probabilities_(static_cast<size_t>(experts.num_layers) *
                         static_cast<size_t>(experts.num_experts)) {
  const auto size = static_cast<size_t>(num_experts_);
  const size_t num_hot = size / static_cast<size_t>(experts.num_ranks);
  std::vector<double> weights(size);
  std::vector<size_t> order(size);
  for (int layer = 0; layer < experts.num_layers; ++layer) {
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = size; i > 1; --i) {
      std::swap(order[i - 1], order[kernels::MixBits(static_cast<uint64_t>(layer) << 32 | i) % i]);
    }
    for (size_t r = 0; r < size; ++r) {
      weights[order[r]] = std::pow(static_cast<double>(r + 1), -spec.zipf_exponent);
    }
    for (size_t e = 0; e < num_hot; ++e) weights[e] *= HotWeight(spec, experts);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    float* row = &log_probabilities_[static_cast<size_t>(layer) * size];
    for (size_t e = 0; e < size; ++e) row[e] = static_cast<float>(std::log(weights[e] / sum));
  }
}

std::vector<double> ForcedRouting::Probabilities(int layer) const {
  std::vector<double> probabilities(static_cast<size_t>(num_experts_));
  for (size_t e = 0; e < probabilities.size(); ++e) {
    probabilities[e] = std::exp(static_cast<double>(
        log_probabilities_[static_cast<size_t>(layer) * probabilities.size() + e]));
  }
  return probabilities;
}

}  // namespace moebius::moe
