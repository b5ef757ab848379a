// Routing by a wished distribution instead of by the router: for benchmarks on random weights,
// whose own routers balance by accident. Const once made; any thread.
//
// Each token draws its k experts without replacement from fixed probabilities
// (kernels::DrawLogits). Uniform: all experts alike. Zipf(a): the r-th most popular expert of a
// layer has a probability proportional to r^-a; which expert that is differs by layer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::moe {

// exponent 0 is uniform.
struct RoutingSpec {
  double zipf_exponent = 0;
};
// "uniform" or "zipf:A" with A in [0, 10].
Result<RoutingSpec> ParseRouting(const std::string& text);

class ForcedRouting {
 public:
  ForcedRouting(const RoutingSpec& spec, int num_layers, int num_experts);

  // Of all layers, one after the other [layers, experts].
  std::span<const float> log_probabilities() const { return log_probabilities_; }
  // Of a layer's experts; they add up to 1.
  std::vector<double> Probabilities(int layer) const;

 private:
  int num_experts_ = 0;
  std::vector<float> log_probabilities_;
};

}  // namespace moebius::moe
