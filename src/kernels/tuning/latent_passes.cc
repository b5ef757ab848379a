#include "kernels/tuning/latent_passes.h"

#include <algorithm>
#include <cstdint>

namespace moebius::kernels {
namespace {

constexpr int64_t kLatentWidth = 512 + 64;
constexpr int64_t kKeyWidth = 128;  // without the rotated part, which all heads share
constexpr int64_t kValueWidth = 128;
constexpr int64_t kElementBytes = 2;
// Fewer rows leave most of a tile empty, and such sequences are short or cheap.
constexpr int64_t kMinQueries = 64;

int64_t WholeTiles(int64_t count) { return (count + kLatentTile - 1) / kLatentTile * kLatentTile; }

// Heads whose keys and values fit beside the latents.
int64_t HeadsThatFit(int64_t num_keys, size_t most_bytes) {
  const int64_t room = static_cast<int64_t>(most_bytes) / (num_keys * kElementBytes);
  return std::max<int64_t>(1, (room - kLatentWidth) / (kKeyWidth + kValueWidth));
}

// Of those numbers that fit the one with the fewest rounds of the multiprocessors: long contexts
// leave room for few heads, and the last round of a group waits for its slowest. A group's start
// counts like a round.
int32_t HeadsAtATime(const LatentPass& pass, const LatentPassOptions& options) {
  const auto rounds = [&](int64_t heads) {
    return (heads * pass.num_tiles + options.num_sms - 1) / options.num_sms;
  };
  const int64_t all = options.num_heads;
  int64_t best = 1;
  int64_t least = INT64_MAX;
  const int64_t fit = std::min(all, HeadsThatFit(pass.num_keys, options.most_bytes));
  for (int64_t heads = 1; heads <= fit; ++heads) {
    const int64_t cost =
        all / heads * (rounds(heads) + 1) + (all % heads > 0 ? rounds(all % heads) + 1 : 0);
    if (cost > least) continue;
    least = cost;
    best = heads;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

bool FitsExpanded(const AttentionShape& shape) {
  return ChooseAttentionForm(shape) == AttentionForm::kMla && shape.nope_dim == kKeyWidth &&
         shape.value_dim == kValueWidth;
}

bool PaysExpanded(int64_t queries, int64_t context) {
  if (queries < kMinQueries || context > kMaxExpandedContext) return false;
  const int64_t visible = context - queries / 2;
  const int64_t absorbed =
      queries * visible * 2 * (kLatentWidth + 512) + queries * 2 * 512 * (kKeyWidth + kValueWidth);
  const int64_t expanded = WholeTiles(queries) * visible * 2 * (kKeyWidth + 64 + kValueWidth) +
                           WholeTiles(context) * 2 * 512 * (kKeyWidth + kValueWidth);
  return expanded < absorbed;
}

LatentPasses PlanLatentPasses(std::span<const AttentionItem> expanded,
                              const LatentPassOptions& options) {
  LatentPasses plan;
  for (size_t i = 0; i < expanded.size();) {
    LatentPass pass;
    pass.first_sequence = static_cast<int32_t>(plan.sequences.size());
    pass.first_tile = static_cast<int32_t>(plan.tiles.size());
    // Sequences share a pass while all heads of all of them fit; a longer one has its own.
    for (; i < expanded.size(); ++i) {
      const AttentionItem& item = expanded[i];
      const int64_t num_keys = pass.num_keys + WholeTiles(item.context);
      if (pass.num_keys > 0 && HeadsThatFit(num_keys, options.most_bytes) < options.num_heads)
        break;
      plan.sequences.push_back({item.seq, item.context, pass.num_keys});
      for (int32_t first = 0; first < item.queries; first += kLatentTile) {
        const auto end = std::min<int32_t>(item.queries, first + kLatentTile);
        plan.tiles.push_back(
            {item.row + first, end - first, item.context - item.queries + end, pass.num_keys});
      }
      pass.num_keys = static_cast<int32_t>(num_keys);
    }
    std::stable_sort(
        plan.tiles.begin() + pass.first_tile, plan.tiles.end(),
        [](const LatentTile& a, const LatentTile& b) { return a.context > b.context; });
    pass.num_sequences = static_cast<int32_t>(plan.sequences.size()) - pass.first_sequence;
    pass.num_tiles = static_cast<int32_t>(plan.tiles.size()) - pass.first_tile;
    pass.num_heads = HeadsAtATime(pass, options);
    plan.passes.push_back(pass);
  }
  return plan;
}

}  // namespace moebius::kernels
