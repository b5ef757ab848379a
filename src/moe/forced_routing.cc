#include "moe/forced_routing.h"

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <utility>

namespace moebius::moe {
namespace {

uint64_t Mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// In (0, 1).
float Uniform(uint64_t bits) {
  return (static_cast<float>(bits >> 40) + 0.5f) * (1.0f / 16777216.0f);
}

}  // namespace

Result<RoutingSpec> ParseRouting(const std::string& text) {
  if (text == "uniform") return RoutingSpec{0};
  if (text.starts_with("zipf:")) {
    char* end = nullptr;
    const std::string number = text.substr(5);
    const double exponent = std::strtod(number.c_str(), &end);
    if (!number.empty() && *end == '\0' && exponent >= 0 && exponent <= 10) {
      return RoutingSpec{exponent};
    }
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "--routing is '{}', expected uniform or zipf:A with A from 0 to 10", text);
}

ForcedRouting::ForcedRouting(const RoutingSpec& spec, int num_layers, int num_experts)
    : num_experts_(num_experts),
      log_probabilities_(static_cast<size_t>(num_layers) * static_cast<size_t>(num_experts)) {
  const auto size = static_cast<size_t>(num_experts);
  double sum = 0;
  for (size_t r = 0; r < size; ++r)
    sum += std::pow(static_cast<double>(r + 1), -spec.zipf_exponent);
  std::vector<size_t> order(size);
  for (int layer = 0; layer < num_layers; ++layer) {
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = size; i > 1; --i) {
      std::swap(order[i - 1],
                order[Mix(static_cast<uint64_t>(layer) << 32 | static_cast<uint64_t>(i)) % i]);
    }
    float* row = &log_probabilities_[static_cast<size_t>(layer) * size];
    for (size_t r = 0; r < size; ++r) {
      row[order[r]] = static_cast<float>(
          -spec.zipf_exponent * std::log(static_cast<double>(r + 1)) - std::log(sum));
    }
  }
}

void ForcedRouting::FillLogits(int layer, std::span<const TokenId> tokens,
                               std::span<const Position> positions, Mat logits) const {
  const float* row =
      &log_probabilities_[static_cast<size_t>(layer) * static_cast<size_t>(num_experts_)];
  for (size_t t = 0; t < tokens.size(); ++t) {
    uint64_t state =
        Mix(Mix(static_cast<uint64_t>(tokens[t])) ^
            Mix(static_cast<uint64_t>(positions[t]) << 20 | static_cast<uint64_t>(layer)));
    float* out = logits.Row<float>(static_cast<int64_t>(t));
    for (int e = 0; e < num_experts_; ++e) {
      state = Mix(state);
      out[e] = row[e] - std::log(-std::log(Uniform(state)));
    }
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
