#include "kernels/tuning/gqa_prefill.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace moebius::kernels {
namespace {

// Fewer rows leave most of a tile empty.
constexpr int64_t kMinTileQueries = 64;
// How many times as fast full tiles are computed: 3.9 to 4.6 (bench/results/kernels-h200.md).
constexpr int64_t kTileGain = 4;

std::vector<AttentionItem> TilesOf(std::span<const AttentionItem> sequences) {
  std::vector<AttentionItem> tiles;
  for (const AttentionItem& s : sequences) {
    for (int32_t first = 0; first < s.queries; first += kGqaTile) {
      const auto end = std::min<int32_t>(s.queries, first + kGqaTile);
      tiles.push_back({s.row + first, s.seq, s.context - s.queries + end, end - first});
    }
  }
  return tiles;
}

// Both times in pairs of a query and a position that a multiprocessor computes one after the other.
int64_t TimeInTiles(std::span<const AttentionItem> tiles, int num_heads, int num_sms) {
  int64_t all = 0;
  int64_t longest = 0;
  for (const AttentionItem& tile : tiles) {
    const int64_t work = (tile.context + kGqaTile - 1) / kGqaTile * kGqaTile * kGqaTile;
    all += work;
    longest = std::max(longest, work);
  }
  return std::max(longest, all * num_heads / num_sms);
}
// Of the kernel that cuts contexts, and wastes nothing.
int64_t TimeCut(std::span<const AttentionItem> sequences, int num_heads, int num_sms) {
  int64_t visible = 0;
  for (const AttentionItem& s : sequences) {
    visible += s.queries * (s.context - int64_t{s.queries} / 2);
  }
  return kTileGain * visible * num_heads / num_sms;
}

}  // namespace

bool FitsGqaPrefill(const AttentionShape& shape) {
  return ChooseAttentionForm(shape) == AttentionForm::kGqa && shape.head_dim == kGqaTile &&
         shape.block_size >= 16 && std::has_single_bit(static_cast<uint64_t>(shape.block_size));
}

GqaPrefillPlan PlanGqaPrefill(std::span<const AttentionItem> sequences, int num_heads,
                              int num_sms) {
  GqaPrefillPlan plan;
  std::ranges::copy_if(sequences, std::back_inserter(plan.sequences),
                       [](const AttentionItem& s) { return s.queries >= kMinTileQueries; });
  plan.tiles = TilesOf(plan.sequences);
  // Few queries of a long context keep few multiprocessors busy for long.
  while (!plan.tiles.empty() && TimeInTiles(plan.tiles, num_heads, num_sms) >=
                                    TimeCut(plan.sequences, num_heads, num_sms)) {
    plan.sequences.erase(std::ranges::max_element(plan.sequences, {}, &AttentionItem::context));
    plan.tiles = TilesOf(plan.sequences);
  }
  for (const AttentionItem& s : plan.sequences) plan.num_keys += s.context;
  std::ranges::stable_sort(plan.tiles, std::ranges::greater{}, &AttentionItem::context);
  return plan;
}

}  // namespace moebius::kernels
