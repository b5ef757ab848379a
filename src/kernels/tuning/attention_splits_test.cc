#include "kernels/tuning/attention_splits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace moebius::kernels {
namespace {

// Every tile of every row is in exactly one segment, slots are dense and in order of tiles, and
// workers hold all segments.
void CheckCovers(const std::vector<int32_t>& contexts, const AttentionSplitOptions& options,
                 const AttentionSplits& splits) {
  ASSERT_EQ(splits.worker_begin.size(), static_cast<size_t>(options.num_workers) + 1);
  EXPECT_EQ(splits.worker_begin.front(), 0);
  EXPECT_EQ(splits.worker_begin.back(), static_cast<int32_t>(splits.segments.size()));
  EXPECT_TRUE(std::is_sorted(splits.worker_begin.begin(), splits.worker_begin.end()));
  std::vector<int32_t> next_tile(contexts.size(), 0);
  std::vector<int32_t> pieces(contexts.size(), 0);
  int32_t num_slots = 0;
  std::vector<int32_t> empty(contexts.size(), 0);
  for (const AttentionSegment& s : splits.segments) {
    if (contexts[s.row] == 0 && options.sums_in_place) {
      EXPECT_EQ(s.begin_tile, s.end_tile);
      EXPECT_EQ(s.slot, -1);
      ++empty[s.row];
      continue;
    }
    ASSERT_LT(s.begin_tile, s.end_tile);
    EXPECT_EQ(s.begin_tile, next_tile[s.row]);
    EXPECT_EQ(s.context, contexts[s.row]);
    next_tile[s.row] = s.end_tile;
    const AttentionRow& row = splits.rows[s.row];
    if (s.slot < 0) {
      EXPECT_EQ(row.num_slots, 0);
    } else {
      EXPECT_EQ(s.slot, row.first_slot + pieces[s.row]);
      ++num_slots;
    }
    // Whoever ends last sums the row: each piece knows all others.
    EXPECT_EQ(s.first_slot, row.first_slot);
    EXPECT_EQ(s.num_slots, row.num_slots);
    ++pieces[s.row];
  }
  EXPECT_EQ(num_slots, splits.num_slots);
  for (size_t r = 0; r < contexts.size(); ++r) {
    EXPECT_EQ(next_tile[r], (contexts[r] + options.tile - 1) / options.tile);
    EXPECT_EQ(empty[r], contexts[r] == 0 && options.sums_in_place ? 1 : 0);
    if (contexts[r] == 0) {
      EXPECT_EQ(splits.rows[r].num_slots, -1);
    } else {
      EXPECT_EQ(splits.rows[r].num_slots, pieces[r] > 1 ? pieces[r] : 0);
    }
  }
}

TEST(AttentionSplits, CoverAnyLengths) {
  std::mt19937 rng(7);
  for (int round = 0; round < 300; ++round) {
    AttentionSplitOptions options;
    options.num_workers = 1 + static_cast<int>(rng() % 140);
    options.segment_cost = static_cast<int>(rng() % 6);
    options.multiple = 1 + static_cast<int>(rng() % 2);
    options.whole = round % 3 == 0;
    options.sums_in_place = rng() % 2 == 0;
    std::vector<int32_t> contexts(rng() % 300);
    for (int32_t& c : contexts) c = rng() % 8 == 0 ? 0 : static_cast<int32_t>(rng() % 9000);
    const AttentionSplits splits = SplitAttention(contexts, {}, options);
    CheckCovers(contexts, options, splits);
    if (options.whole) {
      EXPECT_EQ(splits.num_slots, 0);
    }
    EXPECT_LE(static_cast<int64_t>(splits.segments.size()),
              MaxAttentionSegments(static_cast<int64_t>(contexts.size()), options.num_workers));
    EXPECT_LE(splits.num_slots, MaxAttentionSlots(options.num_workers));
    const auto empty = std::count(contexts.begin(), contexts.end(), 0);
    if (options.sums_in_place) {
      EXPECT_TRUE(splits.combine.empty());
    } else {
      EXPECT_LE(static_cast<int64_t>(splits.combine.size()), options.num_workers + empty);
    }
  }
}

TEST(AttentionSplits, ItemsOfARaggedBatch) {
  const std::vector<int32_t> query_start = {0, 1, 6, 6};
  const std::vector<int32_t> context_len = {40, 12, 9};
  const std::vector<AttentionItem> items = AttentionItems(query_start, context_len, 2);
  ASSERT_EQ(items.size(), 4u);
  const int32_t want[4][4] = {{0, 0, 40, 1}, {1, 1, 9, 2}, {3, 1, 11, 2}, {5, 1, 12, 1}};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(items[i].row, want[i][0]);
    EXPECT_EQ(items[i].seq, want[i][1]);
    EXPECT_EQ(items[i].context, want[i][2]);
    EXPECT_EQ(items[i].queries, want[i][3]);
  }
}

TEST(AttentionSplits, NothingToDo) {
  const AttentionSplits none = SplitAttention(std::vector<AttentionItem>{}, {.num_workers = 3});
  EXPECT_EQ(none.worker_begin, (std::vector<int32_t>{0, 0, 0, 0}));
  const std::vector<int32_t> empty = {0, 0};
  const AttentionSplits zero = SplitAttention(empty, {}, {.num_workers = 2});
  EXPECT_TRUE(zero.segments.empty());
  EXPECT_EQ(zero.rows[1].num_slots, -1);
  const AttentionSplits dealt =
      SplitAttention(empty, {}, {.num_workers = 2, .sums_in_place = true});
  EXPECT_EQ(dealt.worker_begin, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(dealt.segments[1].row, 1);
  EXPECT_TRUE(dealt.combine.empty());
}

TEST(AttentionSplits, WorkIsEven) {
  const std::vector<int32_t> contexts(128, 4096);
  const AttentionSplitOptions options = {.num_workers = 66};
  const AttentionSplits splits = SplitAttention(contexts, {}, options);
  int32_t most = 0;
  for (int w = 0; w < options.num_workers; ++w) {
    int32_t tiles = 0;
    for (int32_t i = splits.worker_begin[w]; i < splits.worker_begin[w + 1]; ++i) {
      tiles += splits.segments[i].end_tile - splits.segments[i].begin_tile;
    }
    most = std::max(most, tiles);
  }
  EXPECT_LE(most, 128 * 64 / 66 + 10);
}

int64_t MostTiles(const AttentionSplits& splits, const AttentionSplitOptions& options) {
  int64_t most = 0;
  for (int w = 0; w < options.num_workers; ++w) {
    int64_t tiles = 0;
    for (int32_t i = splits.worker_begin[w]; i < splits.worker_begin[w + 1]; ++i) {
      tiles += splits.segments[i].end_tile - splits.segments[i].begin_tile + options.segment_cost;
    }
    most = std::max(most, tiles);
  }
  return most;
}

TEST(AttentionSplits, WholeRowsWhereTheyAreNearlyAsEven) {
  const AttentionSplitOptions options = {.num_workers = 132};
  // Two rows for nearly every worker, of one length or of many.
  std::vector<int32_t> contexts(256, 2100);
  EXPECT_EQ(SplitAttention(contexts, {}, options).num_slots, 0);
  for (size_t r = 0; r < contexts.size(); ++r)
    contexts[r] = 1000 + 37 * static_cast<int32_t>(r % 60);
  const AttentionSplits whole = SplitAttention(contexts, {}, options);
  EXPECT_EQ(whole.num_slots, 0);
  CheckCovers(contexts, options, whole);
  AttentionSplitOptions never = options;
  never.cut_cost = -1000;
  const AttentionSplits cut = SplitAttention(contexts, {}, never);
  EXPECT_GT(cut.num_slots, 0);
  EXPECT_LE(MostTiles(whole, options), MostTiles(cut, options) + options.cut_cost);
  // A third row for some would leave all others waiting: cut.
  contexts.assign(300, 2100);
  EXPECT_GT(SplitAttention(contexts, {}, options).num_slots, 0);
  contexts.assign(8, 2100);
  EXPECT_GT(SplitAttention(contexts, {}, options).num_slots, 0);
}

TEST(AttentionSplits, OneLongRowUsesManyWorkers) {
  const std::vector<int32_t> contexts = {16384};
  const AttentionSplits splits = SplitAttention(contexts, {}, {.num_workers = 132});
  EXPECT_GE(splits.num_slots, 30);
}

TEST(AttentionSplits, WholeRowsWhateverElseIsThere) {
  const std::vector<int32_t> contexts = {77, 50000, 0, 1};
  const AttentionSplitOptions options = {.num_workers = 16, .whole = true};
  const AttentionSplits splits = SplitAttention(contexts, {}, options);
  CheckCovers(contexts, options, splits);
  EXPECT_EQ(splits.num_slots, 0);
  EXPECT_EQ(splits.segments.size(), 3u);
}

}  // namespace
}  // namespace moebius::kernels
