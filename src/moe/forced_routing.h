// Routing by a wished distribution instead of by the router: for benchmarks on random weights,
// whose own routers balance by accident. Const once made; any thread.
//
// Each token draws its k experts without replacement from fixed probabilities
// (kernels::DrawLogits). Uniform: all experts alike. Zipf(a): the r-th most popular expert of a
// layer has a probability proportional to r^-a; which expert that is differs by layer. Hot(f): the
// experts of the first rank are chosen f times as often as even shares would have it, alike among
// themselves as the others are: what the rank with most to do has in a deployment of more ranks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::moe {

// Exponent 0 and factor 1 are uniform; one of them is.
struct RoutingSpec {
  double zipf_exponent = 0;
  double hot_factor = 1;

  bool operator==(const RoutingSpec&) const = default;
};
// "uniform", "zipf:A" with A in [0, 10] or "hot:F" with F in [1, 64].
Result<RoutingSpec> ParseRouting(const std::string& text);

// Whom a distribution is for. The first rank's experts are the first ones, an equal part of them.
struct RoutedExperts {
  int num_layers = 0;
  int num_experts = 0;
  int top_k = 1;
  int num_ranks = 1;
};
// kInvalidArgument: no k different experts of each token could make the first rank so hot, or ranks
// have no equal parts.
Status CheckRouting(const RoutingSpec& spec, const RoutedExperts& experts);

class ForcedRouting {
 public:
  // A spec that CheckRouting accepts; a model of one rank that only describes itself has no hot
  // one.
  ForcedRouting(const RoutingSpec& spec, const RoutedExperts& experts);

  // Of all layers, one after the other [layers, experts].
  std::span<const float> log_probabilities() const { return log_probabilities_; }
  // Of a layer's experts; they add up to 1.
  std::vector<double> Probabilities(int layer) const;

 private:
  int num_experts_ = 0;
  std::vector<float> log_probabilities_;
};

}  // namespace moebius::moe
