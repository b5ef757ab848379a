#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "app/eplb_figures.h"

namespace moebius::app {
namespace {

constexpr size_t kExpertsPerLine = 8;

constexpr const char* kDiffers =
    "differs: KL from the reference above 0.05: other questions, or a router that is quantised or "
    "wrong\n";

// A column of a table: its head, and what a layer has there; the last line averages it.
struct Column {
  const char* head;
  int digits;  // behind the point
  std::function<double(const LayerFigures&)> value;
};

// What there are no ranks or no placement for has no column.
std::vector<Column> RankColumns(const LayerFigures& layer,
                                std::optional<RankFigures> LayerFigures::* ranks) {
  std::vector<Column> columns;
  if (!(layer.*ranks)) return columns;
  columns.push_back({"ranks", 3, [ranks](const LayerFigures& l) { return (l.*ranks)->before; }});
  if (!(layer.*ranks)->after) return columns;
  columns.push_back({"placed", 3, [ranks](const LayerFigures& l) { return *(l.*ranks)->after; }});
  columns.push_back({"gain", 2, [ranks](const LayerFigures& l) {
                       return (1 + (l.*ranks)->before) / (1 + *(l.*ranks)->after);
                     }});
  return columns;
}

// Behind the last column stands what `remark` says of a layer.
std::string Table(const std::vector<Column>& columns, const std::vector<LayerFigures>& layers,
                  const std::function<std::string(const LayerFigures&)>& remark = nullptr) {
  constexpr int kWidth = 9;
  std::string text = fmt::format("{:>5}", "layer");
  for (const Column& column : columns) text += fmt::format("{:>{}}", column.head, kWidth);
  text += "\n";
  for (const LayerFigures& layer : layers) {
    text += fmt::format("{:>5}", layer.layer);
    for (const Column& column : columns) {
      text += fmt::format("{:>{}.{}f}", column.value(layer), kWidth, column.digits);
    }
    text += remark ? remark(layer) : "";
    text += "\n";
  }
  if (layers.size() == 1) return text;
  text += " mean";
  for (const Column& column : columns) {
    double sum = 0;
    for (const LayerFigures& layer : layers) sum += column.value(layer);
    text += fmt::format("{:>{}.{}f}", sum / static_cast<double>(layers.size()), kWidth,
                        std::max(column.digits, 1));
  }
  return text + "\n";
}

std::string Experts(const LayerFigures& layer) {
  std::string text = fmt::format("layer {}, tokens by expert\n", layer.layer);
  for (size_t e = 0; e < layer.counts.size(); ++e) {
    if (e % kExpertsPerLine == 0) text += fmt::format("{:>5}:", e);
    text += fmt::format("{:>11}", layer.counts[e]);
    if (e % kExpertsPerLine == kExpertsPerLine - 1 || e + 1 == layer.counts.size()) text += "\n";
  }
  return text;
}

nlohmann::ordered_json ToJson(const std::optional<RankFigures>& ranks) {
  nlohmann::ordered_json json;
  json["before"] = ranks->before;
  if (!ranks->after) return json;
  json["after"] = *ranks->after;
  json["gain"] = (1 + ranks->before) / (1 + *ranks->after);
  return json;
}

}  // namespace

std::string FiguresText(const EplbLoads& loads, const std::vector<LayerFigures>& layers,
                        bool per_expert) {
  const size_t num_iterations = loads.trace.windows.size();
  const LayerFigures& any = layers.front();
  std::vector<Column> by_iteration = {
      {"mean", 1, [](const LayerFigures& l) { return l.mean; }},
      {"std", 1, [](const LayerFigures& l) { return l.std; }},
      {"experts", 3, [](const LayerFigures& l) { return l.imbalance; }}};
  for (Column& column : RankColumns(any, &LayerFigures::ranks)) {
    by_iteration.push_back(std::move(column));
  }
  std::vector<Column> together = {
      {"active", 3, [](const LayerFigures& l) { return l.total.active_share; }},
      {"max/mean", 2, [](const LayerFigures& l) { return l.total.max_over_mean; }},
      {"balanced", 3, [](const LayerFigures& l) { return l.total.balancedness; }},
      {"CV", 3, [](const LayerFigures& l) { return l.total.cv; }},
      {"Gini", 3, [](const LayerFigures& l) { return l.total.gini; }},
      {"entropy", 3, [](const LayerFigures& l) { return l.total.entropy; }},
      {"starved", 0,
       [](const LayerFigures& l) { return static_cast<double>(l.total.starved.size()); }},
      {"dominant", 0,
       [](const LayerFigures& l) { return static_cast<double>(l.total.dominant.size()); }}};
  std::string text = fmt::format("{} experts, {} {}\n\n", loads.trace.num_experts, num_iterations,
                                 num_iterations == 1 ? "iteration" : "iterations");
  if (num_iterations > 1) {
    text += "Each iteration, averaged (imbalance, max / mean - 1: of experts, of ranks)\n";
    text += Table(by_iteration, layers) + "\n";
    text += "All iterations together\n";
  } else {
    together.insert(together.begin(), by_iteration.begin(), by_iteration.begin() + 2);
  }
  if (any.kl) together.push_back({"KL", 3, [](const LayerFigures& l) { return *l.kl; }});
  text += Table(together, layers, [](const LayerFigures& layer) {
    const bool has_collapsed = layer.total.HasCollapsed(layer.counts.size());
    return std::string(has_collapsed ? "  collapsed" : "") + (layer.differs ? "  differs" : "");
  });
  if (std::ranges::any_of(layers, &LayerFigures::differs)) text += kDiffers;
  if (any.total_ranks) {
    std::vector<Column> ranks = RankColumns(any, &LayerFigures::total_ranks);
    ranks.push_back({"best", 3, [](const LayerFigures& l) { return *l.best; }});
    text += "\nBy rank (max / mean - 1), a slot an expert in order";
    text += any.total_ranks->after ? " and placed" : "";
    text += "; best: no placement can beat it\n" + Table(ranks, layers);
  }
  for (const LayerFigures& layer : layers) {
    if (per_expert) text += "\n" + Experts(layer);
  }
  return text;
}

std::string FiguresJson(const EplbLoads& loads, const std::vector<LayerFigures>& layers,
                        bool per_expert) {
  nlohmann::ordered_json json;
  json["num_experts"] = loads.trace.num_experts;
  json["first_iteration"] = loads.first_iteration;
  json["iterations"] = loads.trace.windows.size();
  for (const LayerFigures& layer : layers) {
    const moe::LoadMetrics& total = layer.total;
    nlohmann::ordered_json entry = {
        {"layer", layer.layer},
        {"mean", layer.mean},
        {"std", layer.std},
        {"imbalance", layer.imbalance},
        {"active_share", total.active_share},
        {"max_over_mean", total.max_over_mean},
        {"balancedness", total.balancedness},
        {"cv", total.cv},
        {"gini", total.gini},
        {"entropy", total.entropy},
        {"starved", total.starved},
        {"dominant", total.dominant},
        {"collapse_index", total.StarvedShare(layer.counts.size())},
        {"collapsed", total.HasCollapsed(layer.counts.size())},
    };
    if (layer.kl) entry["kl"] = *layer.kl;
    if (layer.kl) entry["differs"] = layer.differs;
    if (layer.ranks) entry["ranks_by_iteration"] = ToJson(layer.ranks);
    if (layer.total_ranks) entry["ranks"] = ToJson(layer.total_ranks);
    if (layer.best) entry["ranks"]["best"] = *layer.best;
    if (per_expert) entry["tokens"] = layer.counts;
    json["layers"].push_back(std::move(entry));
  }
  return json.dump(2) + "\n";
}

}  // namespace moebius::app
