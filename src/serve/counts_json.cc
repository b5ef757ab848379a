#include "serve/counts_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "serve/metrics_experts.h"

namespace moebius::serve {
namespace {

// Tens of thousands of numbers: written as they are. counts(layer): by expert.
template <typename Counts>
void AppendTable(int num_layers, const Counts& counts, std::string* out) {
  *out += '[';
  for (int layer = 0; layer < num_layers; ++layer) {
    fmt::format_to(std::back_inserter(*out), "{}[{}]", layer == 0 ? "" : ",",
                   fmt::join(counts(layer), ","));
  }
  *out += ']';
}

}  // namespace

std::string CountsJson(const ModelFacts& model, const moe::PlacementState& placement,
                       std::span<const moe::ExpertStats> ranks) {
  moe::ExpertStats none;
  for (const moe::ExpertStats& rank : ranks) {
    if (rank.num_layers() > 0) none = moe::ExpertStats(rank.num_layers(), rank.num_experts());
  }
  const int num_layers = none.num_layers();
  const size_t num_known = std::min(model.moe_layers.size(), static_cast<size_t>(num_layers));
  std::string text = fmt::format(
      R"({{"num_experts":{},"num_experts_per_token":{},"layers":[{}],"epoch":{},"slots":)",
      model.num_experts, model.experts_per_token,
      fmt::join(std::span(model.moe_layers).first(num_known), ","), placement.epoch);
  const std::vector<std::vector<int32_t>>& slots = placement.slots.layers;
  AppendTable(
      static_cast<int>(slots.size()),
      [&](int layer) -> const auto& { return slots[static_cast<size_t>(layer)]; }, &text);
  text += R"(,"ranks":[)";
  for (size_t i = 0; i < ranks.size(); ++i) {
    const moe::ExpertStats& counts = ranks[i].num_layers() == num_layers ? ranks[i] : none;
    text += i == 0 ? R"({"decode":)" : R"(,{"decode":)";
    AppendTable(num_layers, [&](int layer) { return DecodeCounts(counts, layer); }, &text);
    text += R"(,"prefill":)";
    AppendTable(num_layers, [&](int layer) { return counts.PromptLayer(layer); }, &text);
    text += '}';
  }
  text += "]}";
  return text;
}

}  // namespace moebius::serve
