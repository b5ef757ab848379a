#include "moe/balance/load_trace.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/suggest.h"

namespace moebius::moe {
namespace {

constexpr std::array<const char*, 3> kTraceKindNames = {"stationary", "drifting", "shifting"};

}  // namespace

Status CheckTrace(const LoadTrace& trace) {
  if (trace.windows.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "load trace: no window, expected at least one");
  }
  const auto size = static_cast<size_t>(trace.num_layers) * static_cast<size_t>(trace.num_experts);
  for (size_t w = 0; w < trace.windows.size(); ++w) {
    if (trace.windows[w].size() == size) continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "load trace: window {} has {} loads, expected {} ({} layers of {} experts)", w,
                     trace.windows[w].size(), size, trace.num_layers, trace.num_experts);
  }
  return {};
}

SyntheticLoads::SyntheticLoads(int num_layers, int num_experts, double sigma, uint64_t seed)
    : num_experts_(num_experts), sigma_(sigma), random_(seed) {
  log_popularity_.resize(static_cast<size_t>(num_layers) * static_cast<size_t>(num_experts));
  for (double& value : log_popularity_) value = sigma_ * Normal();
}

// Box and Muller's: the standard library's own differ between libraries.
double SyntheticLoads::Normal() {
  const double u = (static_cast<double>(random_() >> 11) + 0.5) * 0x1p-53;
  const double v = static_cast<double>(random_() >> 11) * 0x1p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

void SyntheticLoads::Drift(double d) {
  const double keep = std::sqrt(1 - d * d);
  for (double& value : log_popularity_) value = keep * value + d * sigma_ * Normal();
}

std::vector<double> SyntheticLoads::Popularity() const {
  std::vector<double> popularity(log_popularity_.size());
  for (size_t begin = 0; begin < popularity.size(); begin += static_cast<size_t>(num_experts_)) {
    double sum = 0;
    for (size_t i = begin; i < begin + static_cast<size_t>(num_experts_); ++i) {
      popularity[i] = std::exp(log_popularity_[i]);
      sum += popularity[i];
    }
    for (size_t i = begin; i < begin + static_cast<size_t>(num_experts_); ++i) popularity[i] /= sum;
  }
  return popularity;
}

std::vector<double> SyntheticLoads::Draw(int64_t num_draws) {
  const std::vector<double> popularity = Popularity();
  std::vector<double> counts(popularity.size());
  for (size_t begin = 0; begin < counts.size(); begin += static_cast<size_t>(num_experts_)) {
    int64_t left = num_draws;
    double rest = 1;  // of the popularity
    for (size_t i = begin; i < begin + static_cast<size_t>(num_experts_) && left > 0; ++i) {
      const bool last = i + 1 == begin + static_cast<size_t>(num_experts_);
      const double p = last ? 1 : std::clamp(popularity[i] / rest, 0.0, 1.0);
      const int64_t count = std::binomial_distribution<int64_t>(left, p)(random_);
      counts[i] = static_cast<double>(count);
      left -= count;
      rest -= popularity[i];
    }
  }
  return counts;
}

Result<TraceKind> ParseTraceKind(const std::string& name) {
  for (size_t i = 0; i < kTraceKindNames.size(); ++i) {
    if (name == kTraceKindNames[i]) return static_cast<TraceKind>(i);
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "load trace '{}', expected stationary, drifting or shifting{}", name,
                   DidYouMean(name, {kTraceKindNames.begin(), kTraceKindNames.end()}));
}

LoadTrace SyntheticTrace(TraceKind kind, uint64_t seed, const SyntheticTraceOptions& options) {
  SyntheticLoads loads(options.num_layers, options.num_experts, options.sigma, seed);
  LoadTrace trace{options.num_layers, options.num_experts, {}};
  for (int w = 0; w < options.num_windows; ++w) {
    const bool change = w > 0 && w % options.windows_per_change == 0;
    if (change && kind == TraceKind::kDrifting) loads.Drift(options.drift);
    if (change && kind == TraceKind::kShifting) loads.Drift(1);
    trace.windows.push_back(loads.Draw(options.draws_per_window));
  }
  return trace;
}

}  // namespace moebius::moe
