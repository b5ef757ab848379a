#include "kernels/tuning/attention_splits.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <tuple>

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
    item_of_segment_.push_back(at);
  }
  void NextWorker() {
    splits_.worker_begin.push_back(static_cast<int32_t>(splits_.segments.size()));
  }
  AttentionSplits Take() {
    while (static_cast<int>(splits_.worker_begin.size()) <= options_.num_workers) NextWorker();
    for (size_t i = 0; i < splits_.segments.size(); ++i) {
      AttentionSegment& segment = splits_.segments[i];
      if (segment.slot < 0) continue;
      const AttentionRow& row = splits_.rows[static_cast<size_t>(item_of_segment_[i])];
      segment.first_slot = row.first_slot;
      segment.num_slots = row.num_slots;
    }
    if (options_.sums_in_place) return std::move(splits_);
    for (const AttentionRow& row : splits_.rows) {
      if (row.num_slots != 0) splits_.combine.push_back(row);
    }
    return std::move(splits_);
  }

 private:
  std::span<const AttentionItem> items_;
  const AttentionSplitOptions& options_;
  AttentionSplits splits_;
  std::vector<int32_t> item_of_segment_;
};

// Whether an item gets segments.
bool IsDealt(const AttentionItem& item, const AttentionSplitOptions& options) {
  return item.context > 0 || options.sums_in_place;
}

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
      if (!IsDealt(items[row], options)) continue;
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

// Whole rows, the longest first, each to the worker that has least; false, and nothing is added,
// if one would get more than `most`.
bool DealWhole(std::span<const AttentionItem> items, const AttentionSplitOptions& options,
               int64_t most, Builder& builder) {
  struct Load {
    int64_t tiles;
    int32_t worker;
    bool operator>(const Load& other) const {
      return std::tie(tiles, worker) > std::tie(other.tiles, other.worker);
    }
  };
  struct Row {
    int32_t tiles;
    int32_t item;
    int32_t worker;
  };
  std::vector<Row> rows;
  rows.reserve(items.size());
  for (int32_t i = 0; i < static_cast<int32_t>(items.size()); ++i) {
    const int32_t tiles = TilesOf(std::max(items[i].context, 0), options.tile);
    if (tiles + options.segment_cost > most) return false;
    if (IsDealt(items[i], options)) rows.push_back({tiles, i, 0});
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.tiles > b.tiles; });
  std::vector<Load> loads;
  for (int32_t w = 0; w < options.num_workers; ++w) loads.push_back({0, w});
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least(std::greater<>(),
                                                                     std::move(loads));
  for (Row& row : rows) {
    Load load = least.top();
    load.tiles += row.tiles + options.segment_cost;
    if (load.tiles > most) return false;
    least.pop();
    least.push(load);
    row.worker = load.worker;
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.worker < b.worker; });
  auto row = rows.begin();
  for (int32_t w = 0; w < options.num_workers; ++w) {
    for (; row != rows.end() && row->worker == w; ++row) builder.Add(row->item, 0, row->tiles);
    builder.NextWorker();
  }
  return true;
}

// The smallest share with which all work is dealt.
void Balance(std::span<const AttentionItem> items, const AttentionSplitOptions& options,
             Builder& builder) {
  int64_t total = 0;
  for (const AttentionItem& item : items) {
    if (!IsDealt(item, options)) continue;
    total += TilesOf(std::max(item.context, 0), options.tile) + options.segment_cost;
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
  if (DealWhole(items, options, high + options.cut_cost, builder)) return;
  Deal(
      items, options, high,
      [&](int32_t row, int32_t begin, int32_t end) { builder.Add(row, begin, end); },
      [&] { builder.NextWorker(); });
}

}  // namespace

AttentionSplits SplitAttention(std::span<const AttentionItem> items,
                               const AttentionSplitOptions& options) {
  Builder builder(items, options);
  if (options.whole) {
    DealWhole(items, options, std::numeric_limits<int64_t>::max(), builder);
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
