// One step as plain records: everything the device needs and nothing it must ask for. Made by the
// scheduler, read by a step runner (and, where ranks share a step, copied to its followers).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/ops.h"

namespace moebius::engine {

// An input token that is not known yet: what row `row` of `StepPlan::previous_step` drew.
constexpr TokenId PreviousRow(int32_t row) { return -1 - row; }
constexpr bool IsPreviousRow(TokenId token) { return token < 0; }
constexpr int32_t RowOfPrevious(TokenId token) { return -1 - token; }

// One token to draw, from the logits of the last row of sequence `seq_idx`; or (row.given) the
// prompt token after any of its rows, to be scored. If the row's input is a PreviousRow, it is an
// output token that the lists do not count yet: the runner adds it.
struct PlannedSample {
  struct Slice {
    int64_t begin = 0;
    int64_t count = 0;
  };
  int32_t seq_idx = 0;
  // Its seen_tokens, its logit_bias and, where no constraint gives a mask, its allowed_mask are the
  // request's own, which outlive the step; its other spans are empty, and these say where in the
  // plan they lie. Lists that no penalty needs are empty.
  kernels::SampleRow row;
  Slice output;  // in ids; its counts in `counts` begin at counts_begin
  int64_t counts_begin = 0;
  Slice banned;  // in ids
  Slice mask;    // in masks
};

template <typename T>
std::span<const T> View(const std::vector<T>& all, PlannedSample::Slice slice) {
  return std::span(all).subspan(static_cast<size_t>(slice.begin), static_cast<size_t>(slice.count));
}

struct StepPlan {
  int64_t step_id = -1;
  int64_t previous_step = -1;  // the step that PreviousRow tokens mean
  bool has_prefill = false;    // rows of prompts: a long step. For whoever plans alone

  // By row. Rows of a sequence are adjacent and in order; decodes come before prefill chunks.
  std::vector<TokenId> tokens;
  std::vector<Position> positions;
  std::vector<int64_t> kv_rows;  // block * block_size + offset

  // By sequence, as kernels::AttentionBatch wants it. Of a block table's row only the entries that
  // context_len needs are set.
  std::vector<int32_t> query_start;
  std::vector<int32_t> context_len;
  std::vector<int32_t> block_table;
  int64_t max_blocks = 0;
  int64_t block_size = 0;

  // By drawn or scored token.
  std::vector<int32_t> logit_rows;  // ascending
  std::vector<PlannedSample> samples;
  std::vector<TokenId> ids;
  std::vector<int32_t> counts;
  std::vector<uint32_t> masks;

  int64_t num_rows() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_seqs() const { return static_cast<int64_t>(context_len.size()); }
  int64_t num_samples() const { return static_cast<int64_t>(samples.size()); }

  // Rows of sequences that have but one in this step, which come first: of those that generate (or
  // of a prompt's last token).
  int64_t num_decodes() const {
    int64_t count = 0;
    while (count < num_seqs() && query_start[static_cast<size_t>(count) + 1] == count + 1) ++count;
    return count;
  }

  // Empty, with its memory kept.
  void Clear() {
    tokens.clear();
    positions.clear();
    kv_rows.clear();
    query_start.clear();
    context_len.clear();
    max_blocks = 0;
    logit_rows.clear();
    samples.clear();
    ids.clear();
    counts.clear();
    masks.clear();
    has_prefill = false;
  }
};

}  // namespace moebius::engine
