// The figures of `moebius eplb report`, a layer each. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/eplb_input.h"
#include "moe/balance/load_metrics.h"

namespace moebius::app {

// Imbalance by rank (max / mean - 1): with a slot an expert in order, and with a placement.
struct RankFigures {
  double before = 0;
  std::optional<double> after;
};

struct LayerFigures {
  int layer = 0;  // the model's index
  // Of each iteration, then averaged, as TensorRT-LLM's report does.
  double mean = 0;
  double std = 0;
  double imbalance = 0;
  std::optional<RankFigures> ranks;
  // Of all iterations together. Starved: in each of the last windows (load_metrics.h), which here
  // are as many iterations as bring 100 tokens an expert.
  std::vector<double> counts;  // by expert
  moe::LoadMetrics total;
  std::optional<RankFigures> total_ranks;
  std::optional<double> best;  // what no placement on so many slots can beat
  std::optional<double> kl;    // moe::Divergence from the reference
  bool differs = false;        // by too much, and there are tokens enough to say so
};

// shape: none, nothing is said of ranks. placement: null, nothing is said of after. reference:
// null, nothing is compared.
struct FigureOptions {
  std::optional<moe::SlotShape> shape = std::nullopt;
  const plan::PlacementFile* placement = nullptr;
  std::string placement_path = "";
  const EplbLoads* reference = nullptr;
  std::string reference_path = "";
};
Result<std::vector<LayerFigures>> LayerFiguresOf(const EplbLoads& loads,
                                                 const FigureOptions& options);

std::string FiguresText(const EplbLoads& loads, const std::vector<LayerFigures>& layers,
                        bool per_expert);
std::string FiguresJson(const EplbLoads& loads, const std::vector<LayerFigures>& layers,
                        bool per_expert);

}  // namespace moebius::app
