// How attention over long contexts is spread over a GPU's workers (blocks, or clusters of blocks,
// that stay for the whole launch). Rows of queries are cut into segments of whole tiles so that
// every worker gets nearly the same work; a row that was cut is summed from partial results, by a
// second kernel or in place, by whoever ends last. Where whole rows can be dealt nearly as evenly,
// none is cut. Pure functions of lengths that the scheduler knows before a step is launched: the
// result is uploaded with the step's other inputs. No CUDA here; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moebius::kernels {

// What is cut: one query row, or a few rows of one sequence in a row that share a pass over its
// context.
struct AttentionItem {
  int32_t row = 0;      // the first, of q and out
  int32_t seq = 0;      // row of the block table
  int32_t context = 0;  // the last row sees positions [0, context), each before it one less
  int32_t queries = 1;
};

// One worker's piece of one item: tiles [begin_tile, end_tile) of its context. Layout shared with
// the kernels.
struct AttentionSegment {
  int32_t row = 0;
  int32_t seq = 0;
  int32_t context = 0;
  int32_t begin_tile = 0;
  int32_t end_tile = 0;
  int32_t slot = -1;  // of the partial results; -1: the segment is the whole item
  int32_t queries = 1;
  int32_t first_slot = 0;  // the item's slots, if it was cut: as in AttentionRow
  int32_t num_slots = 0;
};

// Where an item's partial results lie: slots [first_slot, first_slot + num_slots). num_slots 0: it
// was not cut; -1: it sees nothing, its output is zero.
struct AttentionRow {
  int32_t first_slot = 0;
  int32_t num_slots = 0;
  int32_t row = 0;
  int32_t queries = 1;
};

struct AttentionSplitOptions {
  int num_workers = 1;
  int tile = 64;               // positions a tile
  int segment_cost = 8;        // of starting and ending a segment, in tiles
  int cut_cost = 3;            // of putting cut rows together, in tiles of every worker
  int multiple = 2;            // cuts fall on multiples of so many tiles of the row, where they can
  bool whole = false;          // no row is cut, whatever else is in the batch, so that a row's bits
                               // depend on nothing but itself
  bool sums_in_place = false;  // no second kernel: nothing to combine, and items that see nothing
                               // get a segment without tiles
};

struct AttentionSplits {
  std::vector<AttentionSegment> segments;  // grouped by worker
  std::vector<int32_t> worker_begin;       // [num_workers + 1] into segments
  std::vector<AttentionRow> rows;          // [items]
  std::vector<AttentionRow> combine;       // those of them that the second kernel must write
  int32_t num_slots = 0;
};

// Upper bounds that hold for any lengths: what to reserve before a graph is captured.
constexpr int64_t MaxAttentionSegments(int64_t rows, int64_t num_workers) {
  return rows + num_workers;
}
constexpr int64_t MaxAttentionSlots(int64_t num_workers) { return 2 * num_workers; }

AttentionSplits SplitAttention(std::span<const AttentionItem> items,
                               const AttentionSplitOptions& options);

// One item a row. contexts[r]: visible positions of row r (0: none); seqs[r]: its row of the block
// table (empty: r itself).
AttentionSplits SplitAttention(std::span<const int32_t> contexts, std::span<const int32_t> seqs,
                               const AttentionSplitOptions& options);

// The items of a ragged batch (AttentionBatch of kernels/ops.h): each sequence's queries in pieces
// of at most `queries`.
std::vector<AttentionItem> AttentionItems(std::span<const int32_t> query_start,
                                          std::span<const int32_t> context_len, int queries);

}  // namespace moebius::kernels
