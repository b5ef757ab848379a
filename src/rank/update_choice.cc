#include "rank/update_choice.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace moebius::rank {
namespace {

constexpr int kMaxRandomMoves = 3;  // of a layer

}  // namespace

UpdateChoice::UpdateChoice(BalanceLayout layout, const UpdateChoiceOptions& options)
    : layout_(std::move(layout)), options_(options), random_(options.seed) {
  const Window empty{std::vector<double>(static_cast<size_t>(layout_.slots.num_experts))};
  loads_.assign(layout_.experts.size(), {.filling = empty, .past = empty});
}

void UpdateChoice::AddWindow(const moe::ExpertStats& counts, int64_t num_steps) {
  const int num_layers = std::min(counts.num_layers(), layout_.num_layers());
  if (num_layers > 0) MOEBIUS_CHECK_EQ(counts.num_experts(), layout_.slots.num_experts);
  const auto least =
      static_cast<double>(options_.min_tokens_per_expert * layout_.slots.num_experts);
  for (int layer = 0; layer < num_layers; ++layer) {
    LayerLoad& load = loads_[static_cast<size_t>(layer)];
    const std::span<const int64_t> now = counts.Layer(layer);
    std::vector<double>& tokens = load.filling.tokens;
    for (size_t e = 0; e < now.size(); ++e) {
      const int64_t before = layer < last_counts_.num_layers() ? last_counts_.Layer(layer)[e] : 0;
      tokens[e] += static_cast<double>(std::max(now[e] - before, int64_t{0}));
    }
    load.filling.steps += static_cast<double>(num_steps - last_num_steps_);
    // By tokens, not by time: little traffic shall not mean plans from few of them.
    if (std::reduce(tokens.begin(), tokens.end()) < least) continue;
    load.past.steps = load.past.steps * options_.decay + std::exchange(load.filling.steps, 0);
    for (size_t e = 0; e < tokens.size(); ++e) {
      load.past.tokens[e] = load.past.tokens[e] * options_.decay + std::exchange(tokens[e], 0);
    }
    load.is_due = true;
  }
  last_counts_ = counts;
  last_num_steps_ = num_steps;
}

std::vector<LayerUpdate> UpdateChoice::Choose() {
  return options_.is_random ? ChooseAtRandom() : ChooseByLoad();
}

int UpdateChoice::Accept(const std::vector<LayerUpdate>& updates) {
  int num_slots = 0;
  for (const LayerUpdate& update : updates) {
    moe::SlotList& present = layout_.experts[static_cast<size_t>(update.layer)];
    for (size_t p = 0; p < present.size(); ++p) {
      if (update.experts[p] >= 0 && update.experts[p] != present[p]) ++num_slots;
    }
    present = update.experts;
  }
  return num_slots;
}

void UpdateChoice::Take(int layer, const moe::SlotList& experts, StagingLeft& left) const {
  const moe::SlotList& present = layout_.experts[static_cast<size_t>(layer)];
  for (size_t p = 0; p < present.size(); ++p) {
    if (experts[p] < 0 || experts[p] == present[p]) continue;
    --left[static_cast<size_t>(layout_.WorldRankOf(layer, static_cast<int>(p)))];
  }
}

bool UpdateChoice::Fits(int layer, const moe::SlotList& experts, const StagingLeft& left) const {
  StagingLeft rest = left;
  Take(layer, experts, rest);
  return std::ranges::all_of(rest, [](int slots) { return slots >= 0; });
}

double UpdateChoice::StepTokens(int layer) const {
  const Window& past = loads_[static_cast<size_t>(layer)].past;
  return std::reduce(past.tokens.begin(), past.tokens.end()) / std::max(past.steps, 1.0);
}

double UpdateChoice::Seconds(int layer, const moe::SlotList& experts) const {
  return moe::LayerSeconds(options_.cost, layout_.slots,
                           loads_[static_cast<size_t>(layer)].past.tokens, experts,
                           StepTokens(layer));
}

// The present list where nothing pays.
moe::SlotList UpdateChoice::Plan(int layer, double min_gain, int max_moves) const {
  const auto l = static_cast<size_t>(layer);
  const moe::ImproveOptions options{.min_gain = min_gain,
                                    .max_moves = max_moves,
                                    .cost = &options_.cost,
                                    .tokens = StepTokens(layer)};
  Result<moe::SlotList> list = moe::PlanLayer(moe::BalancePolicy::kImprove, layout_.slots,
                                              loads_[l].past.tokens, layout_.experts[l], options);
  if (list) return std::move(*list);
  LogWarning("balancing: layer {} cannot be planned: {}", layer, list.error().message());
  return layout_.experts[l];
}

// The layers whose change pays, the largest gain first.
std::vector<UpdateChoice::Candidate> UpdateChoice::Candidates() {
  const int max_moves = options_.num_staging * layout_.slots.num_ranks;
  std::vector<Candidate> candidates;
  for (int layer = 0; layer < layout_.num_layers(); ++layer) {
    const auto l = static_cast<size_t>(layer);
    if (!loads_[l].is_due) continue;
    const moe::SlotList& present = layout_.experts[l];
    const moe::SlotList next = Plan(layer, options_.min_gain, max_moves);
    loads_[l].is_due = next != present;
    if (!loads_[l].is_due) continue;
    candidates.push_back({layer, Seconds(layer, present) - Seconds(layer, next)});
  }
  std::ranges::stable_sort(candidates, std::ranges::greater(), &Candidate::gain);
  return candidates;
}

// As much of the best change as there is room for, now that it is known to pay.
moe::SlotList UpdateChoice::PlanWithin(int layer, const StagingLeft& left) const {
  for (int moves = options_.num_staging * layout_.slots.num_ranks; moves > 0; moves /= 2) {
    moe::SlotList next = Plan(layer, 0, moves);
    if (Fits(layer, next, left)) return next;
  }
  return layout_.experts[static_cast<size_t>(layer)];
}

UpdateChoice::StagingLeft UpdateChoice::AllStaging() const {
  int num_ranks = 0;
  for (const std::vector<int>& ranks : layout_.ranks) {
    num_ranks = std::max(num_ranks, std::ranges::max(ranks) + 1);
  }
  return StagingLeft(static_cast<size_t>(num_ranks), options_.num_staging);
}

std::vector<LayerUpdate> UpdateChoice::ChooseByLoad() {
  std::vector<LayerUpdate> updates;
  StagingLeft left = AllStaging();
  for (const Candidate& candidate : Candidates()) {
    if (static_cast<int>(updates.size()) == options_.layer_updates_per_iter) break;
    const int layer = candidate.layer;
    moe::SlotList next = PlanWithin(layer, left);
    if (next == layout_.experts[static_cast<size_t>(layer)]) continue;
    Take(layer, next, left);
    updates.push_back({layer, std::move(next)});
  }
  return updates;
}

// A few experts change places with each other, or one gives a second copy's place to another.
moe::SlotList UpdateChoice::Shuffled(int layer, const StagingLeft& left) {
  moe::SlotList experts = layout_.experts[static_cast<size_t>(layer)];
  const int per_rank = layout_.slots.places_per_rank();
  const auto lies_on = [&](int32_t expert, size_t place) {
    const auto begin = experts.begin() + static_cast<int64_t>(place) / per_rank * per_rank;
    return std::find(begin, begin + per_rank, expert) != begin + per_rank;
  };
  for (int i = 0; i < kMaxRandomMoves; ++i) {
    const size_t a = random_() % experts.size();
    const size_t b = random_() % experts.size();
    const int32_t mine = experts[a];
    const int32_t other = experts[b];
    // No rank gets what it has.
    if (mine < 0 || other < 0 || lies_on(other, a) || lies_on(mine, b)) continue;
    const bool is_copied = std::ranges::count(experts, mine) > 1;
    moe::SlotList next = experts;
    next[a] = other;
    if (!is_copied || random_() % 2 == 0) next[b] = mine;
    if (Fits(layer, next, left)) experts = std::move(next);
  }
  return experts;
}

std::vector<LayerUpdate> UpdateChoice::ChooseAtRandom() {
  std::vector<int> layers(layout_.experts.size());
  std::iota(layers.begin(), layers.end(), 0);
  std::ranges::shuffle(layers, random_);
  const auto most = static_cast<size_t>(options_.layer_updates_per_iter);
  layers.resize(std::min(layers.size(), 1 + random_() % most));
  std::vector<LayerUpdate> updates;
  StagingLeft left = AllStaging();
  for (const int layer : layers) {
    moe::SlotList next = Shuffled(layer, left);
    if (next == layout_.experts[static_cast<size_t>(layer)]) continue;
    Take(layer, next, left);
    updates.push_back({layer, std::move(next)});
  }
  return updates;
}

}  // namespace moebius::rank
