#include "moe/forced_routing.h"

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "kernels/random.h"

namespace moebius::moe {

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
      std::swap(order[i - 1], order[kernels::MixBits(static_cast<uint64_t>(layer) << 32 | i) % i]);
    }
    float* row = &log_probabilities_[static_cast<size_t>(layer) * size];
    for (size_t r = 0; r < size; ++r) {
      row[order[r]] = static_cast<float>(
          -spec.zipf_exponent * std::log(static_cast<double>(r + 1)) - std::log(sum));
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
