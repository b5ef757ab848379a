#include "kernels/tuning/attention_splits.h"

#include <algorithm>

namespace moebius::kernels {
namespace {

int32_t TilesOf(int32_t context, int tile) { return (context + tile - 1) / tile; }

// Appends segments to the splits, worker by worker.
class Builder {
 public:
  Builder(std::span<const AttentionItem> items, const AttentionSplitOptions& options)
      : items_(items), options_(options) {
    splits_.rows.resize(items.size());
    splits_.segments.reserve(static_cast<size_t>(
        MaxAttentionSegments(static_cast<int64_t>(items.size()), options.num_workers)));
    splits_.worker_begin.reserve(options.num_workers + 1);
    splits_.worker_begin.push_back(0);
    for (size_t i = 0; i < items.size(); ++i) {
      splits_.rows[i] = {0, items[i].context > 0 ? 0 : -1, items[i].row, items[i].queries};
    }
  }

  // Tiles [begin, end) of item `at` to the present worker.
  void Add(int32_t at, int32_t begin, int32_t end) {
    const AttentionItem& item = items_[at];
    const int32_t tiles = TilesOf(item.context, options_.tile);
    AttentionSegment segment = {item.row, item.seq, item.context, begin, end, -1, item.queries};
    if (begin > 0 || end < tiles) {
      AttentionRow& info = splits_.rows[at];
      if (begin == 0) info.first_slot = splits_.num_slots;
      ++info.num_slots;
      segment.slot = splits_.num_slots++;
    }
    splits_.segments.push_back(segment);
  }
  void NextWorker() {
    splits_.worker_begin.push_back(static_cast<int32_t>(splits_.segments.size()));
  }
  AttentionSplits Take() {
    while (static_cast<int>(splits_.worker_begin.size()) <= options_.num_workers) NextWorker();
    for (const AttentionRow& row : splits_.rows) {
      if (row.num_slots != 0) splits_.combine.push_back(row);
    }
    return std::move(splits_);
  }

 private:
  std::span<const AttentionItem> items_;
  const AttentionSplitOptions& options_;
  AttentionSplits splits_;
};

// Every worker takes pieces until its share is used up; what is left of a row goes to the next.
// Calls add(row, begin, end) and next_worker(); false if work is left over.
template <typename Add, typename NextWorker>
bool Deal(std::span<const AttentionItem> items, const AttentionSplitOptions& options, int64_t share,
          const Add& add, const NextWorker& next_worker) {
  const int cost = options.segment_cost;
  const auto num_rows = static_cast<int32_t>(items.size());
  int32_t row = 0;
  int32_t begin = 0;
  for (int worker = 0; worker < options.num_workers; ++worker) {
    int64_t room = share;
    for (; row < num_rows; ++row, begin = 0) {
      const int32_t tiles = TilesOf(std::max(items[row].context, 0), options.tile);
      if (tiles == 0) continue;
      if (tiles - begin + cost > room) {
        const int64_t fits = (room - cost) / options.multiple * options.multiple;
        if (room > cost && fits > 0) {
          add(row, begin, begin + static_cast<int32_t>(fits));
          begin += static_cast<int32_t>(fits);
        }
        break;
      }
      add(row, begin, tiles);
      room -= tiles - begin + cost;
    }
    next_worker();
  }
  return row == num_rows;
}

// The smallest share with which all work is dealt.
void Balance(std::span<const AttentionItem> items, const AttentionSplitOptions& options,
             Builder& builder) {
  int64_t total = 0;
  for (const AttentionItem& item : items) {
    if (item.context > 0) total += TilesOf(item.context, options.tile) + options.segment_cost;
  }
  const auto nothing = [](auto...) {};
  int64_t low = (total + options.num_workers - 1) / options.num_workers;
  // Enough: a cut costs one more segment and may waste what rounding to `multiple` leaves.
  int64_t high = low + options.segment_cost + options.multiple;
  while (low < high) {
    const int64_t share = (low + high) / 2;
    if (Deal(items, options, share, nothing, nothing)) {
      high = share;
    } else {
      low = share + 1;
    }
  }
  Deal(
      items, options, high,
      [&](int32_t row, int32_t begin, int32_t end) { builder.Add(row, begin, end); },
      [&] { builder.NextWorker(); });
}

// Equal pieces dealt out in order, so many to a worker that all are dealt.
void CutFixed(std::span<const AttentionItem> items, const AttentionSplitOptions& options,
              Builder& builder) {
  int64_t total = 0;
  for (const AttentionItem& item : items) {
    total += TilesOf(TilesOf(std::max(item.context, 0), options.tile), options.fixed_tiles);
  }
  const int64_t share =
      std::max<int64_t>(1, (total + options.num_workers - 1) / options.num_workers);
  int64_t dealt = 0;
  for (int32_t row = 0; row < static_cast<int32_t>(items.size()); ++row) {
    const int32_t tiles = TilesOf(std::max(items[row].context, 0), options.tile);
    for (int32_t begin = 0; begin < tiles; begin += options.fixed_tiles) {
      if (dealt > 0 && dealt % share == 0) builder.NextWorker();
      builder.Add(row, begin, std::min(tiles, begin + options.fixed_tiles));
      ++dealt;
    }
  }
}

}  // namespace

AttentionSplits SplitAttention(std::span<const AttentionItem> items,
                               const AttentionSplitOptions& options) {
  Builder builder(items, options);
  if (options.fixed_tiles > 0) {
    CutFixed(items, options, builder);
  } else {
    Balance(items, options, builder);
  }
  return builder.Take();
}

AttentionSplits SplitAttention(std::span<const int32_t> contexts, std::span<const int32_t> seqs,
                               const AttentionSplitOptions& options) {
  std::vector<AttentionItem> items(contexts.size());
  for (size_t r = 0; r < contexts.size(); ++r) {
    const auto row = static_cast<int32_t>(r);
    items[r] = {row, seqs.empty() ? row : seqs[r], contexts[r], 1};
  }
  return SplitAttention(items, options);
}

std::vector<AttentionItem> AttentionItems(std::span<const int32_t> query_start,
                                          std::span<const int32_t> context_len, int queries) {
  std::vector<AttentionItem> items;
  for (size_t s = 0; s < context_len.size(); ++s) {
    const int32_t count = query_start[s + 1] - query_start[s];
    for (int32_t first = 0; first < count; first += queries) {
      const int32_t last = std::min(count, first + queries);
      items.push_back({query_start[s] + first, static_cast<int32_t>(s),
                       context_len[s] - count + last, last - first});
    }
  }
  return items;
}

}  // namespace moebius::kernels
