#include "kernels/tuning/attention_splits.h"

#include <algorithm>

namespace moebius::kernels {
namespace {

int32_t TilesOf(int32_t context, int tile) { return (context + tile - 1) / tile; }

// Appends segments to the splits, worker by worker.
class Builder {
 public:
  Builder(std::span<const int32_t> contexts, std::span<const int32_t> seqs,
          const AttentionSplitOptions& options)
      : contexts_(contexts), seqs_(seqs), options_(options) {
    splits_.rows.resize(contexts.size());
    splits_.worker_begin.reserve(options.num_workers + 1);
    splits_.worker_begin.push_back(0);
    for (size_t r = 0; r < contexts.size(); ++r) {
      if (contexts[r] <= 0) splits_.rows[r].num_slots = -1;
    }
  }

  void Add(int32_t row, int32_t begin, int32_t end) {
    const int32_t tiles = TilesOf(contexts_[row], options_.tile);
    AttentionSegment segment = {row, seqs_.empty() ? row : seqs_[row], contexts_[row], begin, end,
                                -1};
    if (begin > 0 || end < tiles) {
      AttentionRow& info = splits_.rows[row];
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
    return std::move(splits_);
  }

 private:
  std::span<const int32_t> contexts_;
  std::span<const int32_t> seqs_;
  const AttentionSplitOptions& options_;
  AttentionSplits splits_;
};

// Every worker takes pieces until its share is used up; what is left of a row goes to the next.
// Calls add(row, begin, end) and next_worker(); false if work is left over.
template <typename Add, typename NextWorker>
bool Deal(std::span<const int32_t> contexts, const AttentionSplitOptions& options, int64_t share,
          const Add& add, const NextWorker& next_worker) {
  const int cost = options.segment_cost;
  const auto num_rows = static_cast<int32_t>(contexts.size());
  int32_t row = 0;
  int32_t begin = 0;
  for (int worker = 0; worker < options.num_workers; ++worker) {
    int64_t room = share;
    for (; row < num_rows; ++row, begin = 0) {
      const int32_t tiles = TilesOf(std::max(contexts[row], 0), options.tile);
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
void Balance(std::span<const int32_t> contexts, const AttentionSplitOptions& options,
             Builder& builder) {
  int64_t total = 0;
  for (const int32_t context : contexts) {
    if (context > 0) total += TilesOf(context, options.tile) + options.segment_cost;
  }
  const auto nothing = [](auto...) {};
  int64_t low = (total + options.num_workers - 1) / options.num_workers;
  // Enough: a cut costs one more segment and may waste what rounding to `multiple` leaves.
  int64_t high = low + options.segment_cost + options.multiple;
  while (low < high) {
    const int64_t share = (low + high) / 2;
    if (Deal(contexts, options, share, nothing, nothing)) {
      high = share;
    } else {
      low = share + 1;
    }
  }
  Deal(
      contexts, options, high,
      [&](int32_t row, int32_t begin, int32_t end) { builder.Add(row, begin, end); },
      [&] { builder.NextWorker(); });
}

// Equal pieces dealt out in order, so many to a worker that all are dealt.
void CutFixed(std::span<const int32_t> contexts, const AttentionSplitOptions& options,
              Builder& builder) {
  int64_t total = 0;
  for (const int32_t context : contexts) {
    total += TilesOf(TilesOf(std::max(context, 0), options.tile), options.fixed_tiles);
  }
  const int64_t share =
      std::max<int64_t>(1, (total + options.num_workers - 1) / options.num_workers);
  int64_t dealt = 0;
  for (int32_t row = 0; row < static_cast<int32_t>(contexts.size()); ++row) {
    const int32_t tiles = TilesOf(std::max(contexts[row], 0), options.tile);
    for (int32_t begin = 0; begin < tiles; begin += options.fixed_tiles) {
      if (dealt > 0 && dealt % share == 0) builder.NextWorker();
      builder.Add(row, begin, std::min(tiles, begin + options.fixed_tiles));
      ++dealt;
    }
  }
}

}  // namespace

AttentionSplits SplitAttention(std::span<const int32_t> contexts, std::span<const int32_t> seqs,
                               const AttentionSplitOptions& options) {
  Builder builder(contexts, seqs, options);
  if (options.fixed_tiles > 0) {
    CutFixed(contexts, options, builder);
  } else {
    Balance(contexts, options, builder);
  }
  return builder.Take();
}

}  // namespace moebius::kernels
