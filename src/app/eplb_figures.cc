#include "app/eplb_figures.h"

#include <algorithm>
#include <numeric>

namespace moebius::app {
namespace {

constexpr double kTokensPerExpert = 100;

// The iterations of a layer, joined until chance no longer shows; a rest goes to the last window.
std::vector<std::vector<double>> Windows(const EplbLoads& loads, int layer) {
  std::vector<std::vector<double>> windows;
  const double enough = kTokensPerExpert * loads.trace.num_experts;
  double last = enough;  // tokens of windows.back()
  double left = 0;       // of iterations that have no window yet
  const std::vector<double> sum = loads.Sum(layer);
  left = std::accumulate(sum.begin(), sum.end(), 0.0);
  for (size_t i = 0; i < loads.trace.windows.size(); ++i) {
    const std::span<const double> counts = loads.trace.Layer(i, layer);
    if (windows.empty() || (last >= enough && left >= enough)) {
      windows.emplace_back(counts.size());
      last = 0;
    }
    for (size_t e = 0; e < counts.size(); ++e) windows.back()[e] += counts[e];
    const double tokens = std::accumulate(counts.begin(), counts.end(), 0.0);
    last += tokens;
    left -= tokens;
  }
  return windows;
}

// A layer's placements, whose rank imbalance is asked for load by load.
struct Placements {
  moe::SlotShape before_shape;
  moe::SlotList before;
  moe::SlotShape after_shape;
  moe::SlotList after;  // empty: none

  RankFigures Judge(std::span<const double> load) const {
    RankFigures figures;
    figures.before = moe::Imbalance(moe::RankLoads(before_shape.num_ranks, load, before));
    if (!after.empty()) {
      figures.after = moe::Imbalance(moe::RankLoads(after_shape.num_ranks, load, after));
    }
    return figures;
  }
};

Result<Placements> PlacementsOf(const FigureOptions& options, int layer) {
  Placements placements;
  placements.after_shape = *options.shape;
  placements.before_shape = *options.shape;
  placements.before_shape.num_slots = options.shape->num_experts;
  MOEBIUS_TRY(moe::CheckShape(placements.before_shape));
  std::vector<int32_t> in_order(static_cast<size_t>(options.shape->num_experts));
  std::iota(in_order.begin(), in_order.end(), 0);
  placements.before = PlacesOf(placements.before_shape, in_order);
  if (options.placement != nullptr) {
    MOEBIUS_ASSIGN(placements.after, PlacesOfLayer(*options.placement, options.placement_path,
                                                   *options.shape, layer));
  }
  return placements;
}

void AddByIteration(const EplbLoads& loads, int layer, const std::optional<Placements>& placements,
                    LayerFigures& figures) {
  const auto share = 1.0 / static_cast<double>(loads.trace.windows.size());
  if (placements) {
    figures.ranks.emplace();
    if (!placements->after.empty()) figures.ranks->after = 0;
  }
  for (size_t i = 0; i < loads.trace.windows.size(); ++i) {
    const std::span<const double> load = loads.trace.Layer(i, layer);
    const moe::LoadMetrics metrics = moe::Measure(load);
    figures.mean += share * metrics.mean;
    figures.std += share * metrics.std;
    figures.imbalance += share * (metrics.max_over_mean - 1);
    if (!placements) continue;
    const RankFigures ranks = placements->Judge(load);
    figures.ranks->before += share * ranks.before;
    if (ranks.after) *figures.ranks->after += share * *ranks.after;
  }
}

// A router that is quantised, or wrong, shows in what it does with the same questions.
Status Compare(const FigureOptions& options, LayerFigures& figures) {
  const EplbLoads& reference = *options.reference;
  if (reference.trace.num_experts != static_cast<int>(figures.counts.size())) {
    return MakeError(ErrorCode::kInvalidArgument, "--reference {} has {} experts, expected {}",
                     options.reference_path, reference.trace.num_experts, figures.counts.size());
  }
  const auto found = std::ranges::find(reference.layers, figures.layer);
  if (found == reference.layers.end()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--reference {}: layer {} is missing, expected the layers of the loads",
                     options.reference_path, figures.layer);
  }
  const std::vector<double> counts =
      reference.Sum(static_cast<int>(found - reference.layers.begin()));
  figures.kl = moe::Divergence(figures.counts, counts);
  figures.differs = *figures.kl > moe::kMostDivergence &&
                    std::min(figures.total.mean, moe::Measure(counts).mean) >= kTokensPerExpert;
  return {};
}

}  // namespace

Result<std::vector<LayerFigures>> LayerFiguresOf(const EplbLoads& loads,
                                                 const FigureOptions& options) {
  std::vector<LayerFigures> layers;
  for (int layer = 0; layer < loads.trace.num_layers; ++layer) {
    LayerFigures& figures = layers.emplace_back();
    figures.layer = loads.layers[static_cast<size_t>(layer)];
    figures.counts = loads.Sum(layer);
    figures.total = moe::Measure(figures.counts);
    figures.total.starved = moe::StarvedExperts(Windows(loads, layer));
    std::optional<Placements> placements;
    if (options.shape) {
      MOEBIUS_ASSIGN(placements, PlacementsOf(options, figures.layer));
      figures.total_ranks = placements->Judge(figures.counts);
      figures.best = moe::BestImbalance(*options.shape, figures.counts);
    }
    if (options.reference != nullptr) MOEBIUS_TRY(Compare(options, figures));
    AddByIteration(loads, layer, placements, figures);
  }
  return layers;
}

}  // namespace moebius::app
