// A series a layer, never one an expert: 61 layers of 256 experts would be 15,616.
#include <fmt/format.h>

#include <span>
#include <string>
#include <vector>

#include "serve/metrics_families.h"

namespace moebius::serve {
namespace {

struct LayerGauge {
  const char* name;
  const char* help;
  double (*value)(const LayerBalance& layer);
};

constexpr LayerGauge kExpertGauges[] = {
    {"moebius:expert_load_max", "Assignments of the layer's busiest expert, in the window.",
     [](const LayerBalance& layer) { return layer.experts.max; }},
    {"moebius:expert_load_mean",
     "Assignments of an expert of the layer, in the window. Below 100 chance alone makes experts "
     "look uneven.",
     [](const LayerBalance& layer) { return layer.experts.mean; }},
    {"moebius:expert_imbalance",
     "The busiest expert's load over the mean: 1 is even and good; 0 without tokens.",
     [](const LayerBalance& layer) {
       return layer.experts.mean > 0 ? layer.experts.max_over_mean : 0;
     }},
    {"moebius:expert_balancedness",
     "The mean over the busiest expert's load: 1 is even and good; 0 without tokens.",
     [](const LayerBalance& layer) {
       return layer.experts.mean > 0 ? layer.experts.balancedness : 0;
     }},
    {"moebius:experts_active", "Experts of the layer that got a token, in the window.",
     [](const LayerBalance& layer) { return static_cast<double>(layer.num_active); }},
    {"moebius:expert_effective_ratio",
     "Experts of the layer that got a token over all: 1 is good; 0 without tokens.",
     [](const LayerBalance& layer) { return layer.experts.active_share; }},
    {"moebius:expert_cv", "Standard deviation of experts' loads over their mean: 0 is even.",
     [](const LayerBalance& layer) { return layer.experts.cv; }},
    {"moebius:expert_gini", "Gini coefficient of experts' loads: 0 is even, 1 all on one.",
     [](const LayerBalance& layer) { return layer.experts.gini; }},
    {"moebius:expert_entropy",
     "Entropy of experts' loads over that of even ones: 1 is even and good, below 0.8 the layer "
     "has collapsed.",
     [](const LayerBalance& layer) { return layer.experts.entropy; }},
    {"moebius:experts_starved",
     "Experts of the layer with less than a tenth of the mean in three windows: 0 is good, and "
     "said below 100 assignments an expert.",
     [](const LayerBalance& layer) { return static_cast<double>(layer.experts.starved.size()); }},
    {"moebius:experts_dominant",
     "Experts of the layer with more than 8 times the mean: 0 is good, and said below 100 "
     "assignments an expert.",
     [](const LayerBalance& layer) { return static_cast<double>(layer.experts.dominant.size()); }},
    {"moebius:expert_collapse_index",
     "Starved experts of the layer over all: 0 is good, above 0.05 the layer has collapsed.",
     [](const LayerBalance& layer) { return layer.collapse_index; }},
    {"moebius:expert_collapsed",
     "1 where the layer's collapse index is above 0.05 or its entropy below 0.8: 0 is good.",
     [](const LayerBalance& layer) { return layer.has_collapsed ? 1.0 : 0.0; }},
};

constexpr LayerGauge kRankGauges[] = {
    {"moebius:rank_expert_load_max",
     "Assignments that the layer's busiest rank got, in the window.",
     [](const LayerBalance& layer) { return static_cast<double>(layer.ranks.max); }},
    {"moebius:rank_imbalance",
     "The busiest rank's assignments of the layer over the mean of all ranks, as experts are "
     "placed now: 1 is even and good; 0 without tokens.",
     [](const LayerBalance& layer) { return layer.ranks.imbalance(); }},
    {"moebius:rank_balancedness",
     "The mean over the busiest: 1 is even and good; 0 without tokens.",
     [](const LayerBalance& layer) { return layer.ranks.balancedness(); }},
    {"moebius:rank_imbalance_in_order",
     "What moebius:rank_imbalance would be with one slot an expert, in order.",
     [](const LayerBalance& layer) { return layer.ranks_in_order.imbalance(); }},
    {"moebius:balancing_gain",
     "That over moebius:rank_imbalance: above 1 the placement helps, 1 where nothing is placed; 0 "
     "without tokens.",
     [](const LayerBalance& layer) { return layer.gain(); }},
};

class LayerFamilies {
 public:
  LayerFamilies(const std::vector<LayerBalance>& layers, MetricsText& text)
      : layers_(layers), text_(text) {
    for (size_t i = 0; i < layers.size(); ++i) labels_.push_back(fmt::to_string(i));
  }

  void Gauges(std::span<const LayerGauge> gauges) {
    for (const LayerGauge& gauge : gauges) {
      text_.Gauge(gauge.name, gauge.help);
      for (size_t i = 0; i < layers_.size(); ++i) {
        text_.Sample(gauge.value(layers_[i]), {{"layer", labels_[i]}});
      }
    }
  }
  // count(layer)
  template <typename Count>
  void Counter(const char* name, const char* help, const Count& count) {
    text_.Counter(name, help);
    for (size_t i = 0; i < layers_.size(); ++i) {
      text_.Sample(count(static_cast<int>(i)), {{"layer", labels_[i]}});
    }
  }
  // value(layer)
  template <typename Value>
  void Gauge(const char* name, const char* help, const Value& value) {
    text_.Gauge(name, help);
    for (size_t i = 0; i < layers_.size(); ++i) {
      text_.Sample(value(static_cast<int>(i)), {{"layer", labels_[i]}});
    }
  }
  // decode(layer), prefill(layer)
  template <typename Decode, typename Prefill>
  void PhaseGauge(const char* name, const char* help, const Decode& decode,
                  const Prefill& prefill) {
    text_.Gauge(name, help);
    for (size_t i = 0; i < layers_.size(); ++i) {
      text_.Sample(decode(i), {{"layer", labels_[i]}, {"phase", "decode"}});
      text_.Sample(prefill(i), {{"layer", labels_[i]}, {"phase", "prefill"}});
    }
  }

 private:
  const std::vector<LayerBalance>& layers_;
  std::vector<std::string> labels_;
  MetricsText& text_;
};

// Nothing until rows were counted: a device keeps them to itself.
void AppendLocality(const Snapshot& snapshot, const ExpertRows& rows, int num_ranks,
                    MetricsText& text) {
  if (RowsOf(snapshot.ranks).computed == 0) return;
  text.Gauge("moebius:routing_locality",
             "Share of assignments that were computed on their token's own rank, in the window: "
             "more is less to send; 0 without tokens.",
             ShareOf(rows.at_home, rows));
  text.Gauge("moebius:routing_locality_expected",
             "What it is without any care: 1 over the ranks that experts are spread over.",
             1.0 / num_ranks);
  text.Gauge("moebius:routing_locality_copies",
             "Share of assignments that were computed on their token's own rank by one of several "
             "copies of their expert: what copies have brought home; 0 without tokens.",
             ShareOf(rows.by_copy, rows));
  text.Gauge("moebius:routing_locality_node",
             "Share of assignments that were computed on their token's own machine; 0 without "
             "tokens.",
             ShareOf(rows.on_node, rows));
}

// What balancing has done; nothing where experts stay where they are.
void AppendMoves(const moe::PlacementState& placement, MetricsText& text) {
  if (!placement.is_moving) return;
  const moe::BalanceStatus& moves = placement.moves;
  text.Counter("moebius:eplb_plans_total",
               "Changes of the placement, where experts move: those that came to be, and those "
               "that were dropped, of which 0 is good.");
  text.Sample(moves.num_committed, {{"result", "committed"}});
  text.Sample(moves.num_dropped, {{"result", "dropped"}});
  text.Counter("moebius:eplb_moved_slots_total",
               "Slots that got another expert, where experts move: fewer and fewer is good.",
               moves.num_slots);
  text.Counter("moebius:eplb_moved_bytes_total",
               "Bytes of experts that were fetched, where experts move; those of dropped changes, "
               "too.",
               moves.num_bytes);
  text.Counter("moebius:eplb_fetched_experts_total",
               "Experts that were fetched, where experts move, by where from: same_rank is "
               "cheapest, checkpoint slowest.");
  text.Sample(moves.from_same_rank, {{"source", "same_rank"}});
  text.Sample(moves.from_peer, {{"source", "peer"}});
  text.Sample(moves.from_pool, {{"source", "host_pool"}});
  text.Sample(moves.from_checkpoint, {{"source", "checkpoint"}});
  text.Counter("moebius:eplb_corrupt_pieces_total",
               "Pieces of experts, and whole ones where they were put, that had a wrong checksum, "
               "where experts move: 0 is good; they are fetched again.",
               moves.num_corrupt);
  text.Counter("moebius:eplb_moving_seconds_total",
               "Time that changes were under way beside the steps, where experts move.",
               moves.seconds);
  text.Counter("moebius:eplb_moving_steps_total", "Steps that ran meanwhile, where experts move.",
               moves.num_steps);
  text.Counter("moebius:eplb_stall_seconds_total",
               "Time that steps waited for the changes themselves, where experts move: the slowest "
               "rank's of each.",
               moves.stall_seconds);
}

}  // namespace

void AppendExpertMetrics(const Snapshot& snapshot, const ExpertLoad& window,
                         const std::vector<LayerBalance>& balance, MetricsText& text) {
  if (balance.empty()) return;
  text.Gauge("moebius:expert_statistics",
             "1 while tokens are counted by expert; 0 (--no-expert-statistics): what is told from "
             "those counts is 0 or even.",
             snapshot.model.expert_statistics ? 1 : 0);
  LayerFamilies families(balance, text);
  families.Counter("moebius:expert_assignments_total",
                   "Tokens times experts a token, by MoE layer (counted from 0).",
                   [&](int layer) { return SpreadOf(snapshot.experts.Layer(layer)).total; });
  families.Counter("moebius:expert_prompt_assignments_total", "Of those, tokens of prompts.",
                   [&](int layer) { return SpreadOf(snapshot.experts.PromptLayer(layer)).total; });
  text.Gauge("moebius:expert_window_seconds",
             "How far back the gauges of experts and ranks look: about a minute.", window.seconds);
  families.Gauges(kExpertGauges);
  families.Gauge("moebius:expert_effective_ratio_expected",
                 "What moebius:expert_effective_ratio would be if each token took its experts at "
                 "random; 0 without tokens.",
                 [&](int layer) {
                   return ExpectedEffectiveRatio(window.Layer(layer),
                                                 snapshot.model.experts_per_token);
                 });
  families.PhaseGauge(
      "moebius:expert_phase_imbalance",
      "moebius:expert_imbalance of generation and of prompts alone: 1 is good; 0 without tokens.",
      [&](size_t layer) {
        return SpreadOf(DecodeCounts(window.counts, static_cast<int>(layer))).imbalance();
      },
      [&](size_t layer) {
        return SpreadOf(window.counts.PromptLayer(static_cast<int>(layer))).imbalance();
      });
}

void AppendBalanceMetrics(const Snapshot& snapshot, const ExpertLoad& window,
                          const std::vector<LayerBalance>& balance, MetricsText& text) {
  const int num_ranks = NumExpertRanks(snapshot.ranks);
  if (balance.empty() || num_ranks == 0) return;
  LayerFamilies families(balance, text);
  families.Gauges(kRankGauges);
  families.PhaseGauge(
      "moebius:rank_phase_imbalance",
      "moebius:rank_imbalance of generation and of prompts alone: 1 is good; 0 without tokens.",
      [&](size_t layer) { return balance[layer].decode_ranks.imbalance(); },
      [&](size_t layer) { return balance[layer].prompt_ranks.imbalance(); });
  AppendLocality(snapshot, window.rows, num_ranks, text);
  text.Gauge("moebius:eplb_epoch",
             "Number of the last placement that was committed: it grows with every change.",
             snapshot.placement.epoch);
  AppendMoves(snapshot.placement, text);
}

}  // namespace moebius::serve
