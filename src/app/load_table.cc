#include "app/load_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "app/numbers.h"
#include "app/standard_output.h"
#include "moe/balance/policy.h"

namespace moebius::app {
namespace {

// More than these stand as least and most.
constexpr int64_t kMostColumns = 8;

std::string Columns(const LoadTable& table, const layout::ExpertRange& range) {
  const auto begin = table.expert_tokens.begin() + range.begin;
  const auto end = table.expert_tokens.begin() + range.end;
  if (begin == end) return "none";
  if (range.end - range.begin > kMostColumns) {
    const auto [least, most] = std::minmax_element(begin, end);
    return fmt::format("{} to {} each", *least, *most);
  }
  std::string text;
  for (auto tokens = begin; tokens != end; ++tokens) text += fmt::format("{:>8}", *tokens);
  return text;
}

double PercentOf(int64_t part, int64_t all) {
  return all > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(all) : 0;
}

std::string FormatSlots(const LoadTable& table) {
  const int64_t all =
      std::accumulate(table.slot_tokens.begin(), table.slot_tokens.end(), int64_t{0});
  const bool has_moved = table.before && table.after;
  std::string text = fmt::format("{:>4}  {:>6}  {:>9}  {:>8}  {:>6}{}\n", "rank", "own", "slots",
                                 "tokens", "share", has_moved ? "   before     after" : "");
  for (size_t rank = 0; rank < table.slots.size(); ++rank) {
    text += fmt::format("{:>4}  {:>6}  {:>9}  {:>8}  {:>4.1f} %", rank,
                        rank < table.rows.size() ? fmt::format("{}", table.rows[rank]) : "",
                        table.slots[rank], table.slot_tokens[rank],
                        PercentOf(table.slot_tokens[rank], all));
    if (has_moved) {
      text += fmt::format("  {:>7.0f}  {:>8.0f}", table.before->tokens[rank],
                          table.after->tokens[rank]);
    }
    text += '\n';
  }
  if (has_moved) {
    text += fmt::format(
        "before, after: these tokens as the first and the last placement share them out; a layer's "
        "busiest rank has {:.0f} % and {:.0f} % more than the mean.\n",
        100 * table.before->imbalance, 100 * table.after->imbalance);
  }
  if (table.moves) {
    text += fmt::format(
        "placement changed {}: {}, {:.1f} MB\n", Count(table.moves->num_committed, "time"),
        Count(table.moves->num_slots, "slot"), static_cast<double>(table.moves->num_bytes) / 1e6);
  }
  return text;
}

// What `slots` make of the tokens that were counted.
LoadTable::Shares SharesOf(const moe::ExpertStats& counts, const moe::SlotAssignment& slots,
                           int num_ranks) {
  LoadTable::Shares shares;
  shares.tokens.assign(static_cast<size_t>(num_ranks), 0);
  for (int layer = 0; layer < counts.num_layers(); ++layer) {
    const std::span<const int64_t> tokens = counts.Layer(layer);
    const std::vector<double> ranks =
        moe::RankLoads(num_ranks, std::vector<double>(tokens.begin(), tokens.end()),
                       slots.Of(layer, counts.num_experts(), num_ranks));
    for (size_t rank = 0; rank < ranks.size(); ++rank) shares.tokens[rank] += ranks[rank];
    shares.imbalance += moe::Imbalance(ranks) / counts.num_layers();
  }
  return shares;
}

}  // namespace

std::string FormatLoad(const LoadTable& table) {
  if (table.expert_tokens.empty()) return "There are no experts.\n";
  const int64_t all =
      std::accumulate(table.expert_tokens.begin(), table.expert_tokens.end(), int64_t{0});
  std::string text =
      fmt::format("{} tokens came to experts: {} of {} take each token, in each of {} layers.\n",
                  all, table.top_k, table.expert_tokens.size(), table.num_moe_layers);
  if (!table.slots.empty()) return text + FormatSlots(table);
  std::vector<layout::ExpertRange> ranks = table.experts;
  const bool are_cut = ranks.empty();
  if (are_cut) ranks.push_back({0, static_cast<int64_t>(table.expert_tokens.size())});
  text += fmt::format("{:>4}  {:>6}  {:>9}  {:>8}  {:>6}  {}\n", "rank", "own", "experts", "tokens",
                      "share", "tokens of each expert");
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const layout::ExpertRange& range = ranks[rank];
    const int64_t tokens = std::accumulate(table.expert_tokens.begin() + range.begin,
                                           table.expert_tokens.begin() + range.end, int64_t{0});
    const std::string own = rank < table.rows.size() ? fmt::format("{}", table.rows[rank]) : "";
    text +=
        fmt::format("{:>4}  {:>6}  {:>9}  {:>8}  {:>4.1f} %  {}\n",
                    are_cut ? "all" : fmt::format("{}", rank), own,
                    range.begin == range.end ? std::string("none")
                                             : fmt::format("{} to {}", range.begin, range.end - 1),
                    tokens, PercentOf(tokens, all), Columns(table, range));
  }
  return text;
}

LoadTable ReadLoad(const frontend::OpenedModel& opened) {
  constexpr auto kOld = std::chrono::milliseconds(500);
  const layout::ParallelConfig& parallel = opened.parallel;
  const model::ModelConfig& config = opened.config;
  if (parallel.num_gpus() > 1) std::this_thread::sleep_for(kOld);
  LoadTable table;
  table.num_moe_layers = config.num_moe_layers();
  table.top_k = config.moe.top_k;
  const moe::ExpertStats expert_load = opened.frontend->engine().ExpertLoad();
  table.expert_tokens.assign(static_cast<size_t>(config.moe.num_experts), 0);
  for (int layer = 0; layer < expert_load.num_layers(); ++layer) {
    const std::span<const int64_t> counts = expert_load.Layer(layer);
    for (size_t expert = 0; expert < counts.size(); ++expert) {
      table.expert_tokens[expert] += counts[expert];
    }
  }
  const int group = parallel.expert_group();
  const bool is_whole = group == 1 || parallel.enable_expert_parallel;
  for (int rank = 0; is_whole && config.moe.num_experts > 0 && rank < group; ++rank) {
    table.experts.push_back(layout::ExpertsOfRank(config.moe.num_experts, group, rank));
  }
  if (!table.experts.empty()) table.rows.assign(table.experts.size(), 0);
  const std::vector<engine::RankLoad> loads = opened.frontend->engine().RankLoads();
  for (const engine::RankLoad& load : loads) {
    const auto rank = static_cast<size_t>(load.expert_rank);
    if (load.pp == 0 && rank < table.rows.size()) table.rows[rank] = load.num_rows;
  }
  const moe::PlacementState placement = opened.frontend->engine().Placement();
  const moe::SlotAssignment& slots = placement.slots;
  if (slots.num_slots == 0 || table.experts.empty()) return table;
  if (placement.is_moving) table.moves = placement.moves;
  table.slots.assign(table.experts.size(), 0);
  table.slot_tokens.assign(table.experts.size(), 0);
  const std::vector<int32_t> first = slots.Of(0, config.moe.num_experts, group);
  for (size_t slot = 0; slot < first.size(); ++slot) {
    if (first[slot] >= 0) ++table.slots[slot / (first.size() / table.slots.size())];
  }
  for (const engine::RankLoad& load : loads) {
    const auto rank = static_cast<size_t>(load.expert_rank);
    if (rank < table.slot_tokens.size()) table.slot_tokens[rank] += load.num_expert_rows;
  }
  table.experts.clear();
  if (std::ranges::count(table.slot_tokens, 0) == std::ssize(table.slot_tokens)) {
    // A GPU does not say what its slots got; one an expert there, it follows from the counts.
    std::ranges::transform(SharesOf(expert_load, slots, group).tokens, table.slot_tokens.begin(),
                           [](double tokens) { return static_cast<int64_t>(tokens); });
  }
  if (placement.epoch > 0 && expert_load.num_layers() > 0) {
    table.before = SharesOf(expert_load, placement.start, group);
    table.after = SharesOf(expert_load, slots, group);
  }
  return table;
}

void PrintLoad(const frontend::OpenedModel& opened) {
  fmt::print("{}", FormatLoad(ReadLoad(opened)));
  FlushStandardOutput();
}

}  // namespace moebius::app
