// Loads of experts over time: recorded, or made up for tests and comparisons. Each owner its own.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::moe {

struct LoadTrace {
  int num_layers = 0;
  int num_experts = 0;
  // windows[w]: tokens by layer, then expert [num_layers x num_experts], of one stretch of time.
  std::vector<std::vector<double>> windows;

  std::span<const double> Layer(size_t window, int layer) const {
    return std::span(windows[window])
        .subspan(static_cast<size_t>(layer) * static_cast<size_t>(num_experts),
                 static_cast<size_t>(num_experts));
  }
};
// kInvalidArgument: a window is not of num_layers x num_experts numbers, or there is none.
Status CheckTrace(const LoadTrace& trace);

// Log-normal popularity of experts and counts drawn by it. A sigma of 1.2 gives DeepSeek-R1's
// published skew: the busiest of 256 experts has about ten times the mean.
class SyntheticLoads {
 public:
  SyntheticLoads(int num_layers, int num_experts, double sigma, uint64_t seed);

  // The popularity goes part of the way to another: log p becomes sqrt(1 - d^2) log p + d x fresh
  // noise, which keeps sigma. 0: stays; 1: nothing is left of the old.
  void Drift(double d);
  // Counts of so many draws (tokens x top_k) a layer.
  std::vector<double> Draw(int64_t num_draws);
  // What counts are proportional to, by layer, then expert; a layer's sum to 1.
  std::vector<double> Popularity() const;

 private:
  double Normal();

  int num_experts_;
  double sigma_;
  std::mt19937_64 random_;
  std::vector<double> log_popularity_;
};

enum class TraceKind : uint8_t {
  kStationary,  // one popularity
  kDrifting,    // it drifts by `drift` every `windows_per_change`
  kShifting,    // another one every `windows_per_change`
};
// "stationary", "drifting", "shifting". kInvalidArgument lists them.
Result<TraceKind> ParseTraceKind(const std::string& name);

struct SyntheticTraceOptions {
  int num_layers = 6;
  int num_experts = 256;
  int num_windows = 96;
  int windows_per_change = 12;
  double sigma = 1.2;
  double drift = 0.2;
  int64_t draws_per_window = 4096 * 8;  // tokens x top_k
};
LoadTrace SyntheticTrace(TraceKind kind, uint64_t seed, const SyntheticTraceOptions& options = {});

}  // namespace moebius::moe
