#include "engine/plan_codec_check.h"

#include <algorithm>
#include <functional>

namespace moebius::engine {
namespace {

using Slice = PlannedSample::Slice;

// Names the first entry that is not in [low, high).
template <typename T>
Status CheckEntries(const char* field, std::span<const T> entries, int64_t low, int64_t high) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto entry = static_cast<int64_t>(entries[i]);
    if (entry < low || entry >= high) {
      return CorruptPlan(field, "hold {} at {}, expected {} to {}", entry, i, low, high - 1);
    }
  }
  return {};
}

Status CheckValue(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return CorruptPlan(field, "is {}, expected {} to {}", value, low, high);
}

Status CheckSizes(const StepPlan& plan, const PlanLimits& limits) {
  MOEBIUS_TRY(CheckValue("number of tokens", plan.num_rows(), 0, limits.max_rows));
  MOEBIUS_TRY(CheckValue("number of context_len", plan.num_seqs(), 0, limits.max_seqs));
  MOEBIUS_TRY(CheckValue("max_blocks", plan.max_blocks, 0, limits.max_blocks));
  if (plan.num_seqs() > 0) {
    MOEBIUS_TRY(CheckValue("block_size", plan.block_size, limits.block_size, limits.block_size));
  }
  MOEBIUS_TRY(CheckCount("positions", plan.positions.size(), plan.num_rows()));
  MOEBIUS_TRY(CheckCount("kv_rows", plan.kv_rows.size(), plan.num_rows()));
  MOEBIUS_TRY(
      CheckCount("block_table", plan.block_table.size(), plan.num_seqs() * plan.max_blocks));
  if (plan.num_seqs() == 0 && plan.query_start.empty()) {
    return CheckCount("tokens", plan.tokens.size(), 0);
  }
  return CheckCount("query_start", plan.query_start.size(), plan.num_seqs() + 1);
}

// One sequence: its rows follow each other to the end of its context, and lie in its blocks.
Status CheckSequence(const StepPlan& plan, size_t seq, const PlanLimits& limits) {
  const auto begin = static_cast<int64_t>(plan.query_start[seq]);
  const auto end = static_cast<int64_t>(plan.query_start[seq + 1]);
  if (begin > end || end > plan.num_rows()) {
    return CorruptPlan("query_start", "holds {} at {}, expected {} to {}", end, seq + 1, begin,
                       plan.num_rows());
  }
  const auto length = static_cast<int64_t>(plan.context_len[seq]);
  const int64_t capacity = plan.max_blocks * plan.block_size;
  if (length < end - begin || length > capacity) {
    return CorruptPlan("context_len", "holds {} at {}, expected {} to {}", length, seq, end - begin,
                       capacity);
  }
  const int32_t* const blocks =
      plan.block_table.data() + seq * static_cast<size_t>(plan.max_blocks);
  for (int64_t i = 0; i * plan.block_size < length; ++i) {
    if (blocks[i] < 0 || blocks[i] >= limits.num_kv_blocks) {
      return CorruptPlan("block_table", "holds {} at {} of sequence {}, expected 0 to {}",
                         blocks[i], i, seq, limits.num_kv_blocks - 1);
    }
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t position = length - end + row;
    const int64_t found = plan.positions[static_cast<size_t>(row)];
    if (found != position) {
      return CorruptPlan("positions", "hold {} at {}, expected {}", found, row, position);
    }
    const int64_t kv_row =
        blocks[position / plan.block_size] * plan.block_size + position % plan.block_size;
    const int64_t found_row = plan.kv_rows[static_cast<size_t>(row)];
    if (found_row != kv_row) {
      return CorruptPlan("kv_rows", "hold {} at {}, expected {}", found_row, row, kv_row);
    }
  }
  return {};
}

}  // namespace

Status CheckCount(const char* field, size_t count, int64_t expected) {
  if (static_cast<int64_t>(count) == expected) return {};
  return CorruptPlan(field, "have {} entries, expected {}", count, expected);
}

Status CheckTokens(const char* field, std::span<const TokenId> tokens, int64_t vocab_size) {
  return CheckEntries(field, tokens, 0, vocab_size);
}

Status CheckRows(const StepPlan& plan, const PlanLimits& limits) {
  MOEBIUS_TRY(CheckSizes(plan, limits));
  MOEBIUS_TRY(CheckEntries("tokens", std::span<const TokenId>(plan.tokens), -limits.max_rows,
                           limits.vocab_size));
  if (!plan.query_start.empty()) {
    if (plan.query_start.front() != 0 || plan.query_start.back() != plan.num_rows()) {
      return CorruptPlan("query_start", "goes from {} to {}, expected 0 to {}",
                         plan.query_start.front(), plan.query_start.back(), plan.num_rows());
    }
  }
  for (size_t seq = 0; seq < plan.context_len.size(); ++seq) {
    MOEBIUS_TRY(CheckSequence(plan, seq, limits));
  }
  MOEBIUS_TRY(
      CheckEntries("logit_rows", std::span<const int32_t>(plan.logit_rows), 0, plan.num_rows()));
  const auto it = std::ranges::adjacent_find(plan.logit_rows, std::ranges::greater_equal());
  if (it == plan.logit_rows.end()) return {};
  return CorruptPlan("logit_rows", "hold {} before {}, expected them to ascend", *it, *(it + 1));
}

Status CheckSlice(const char* field, size_t sample, Slice slice, size_t size) {
  const auto all = static_cast<int64_t>(size);
  if (slice.count >= 0 && slice.begin >= 0 && slice.begin <= all &&
      slice.count <= all - slice.begin) {
    return {};
  }
  return CorruptPlan(field, "of sample {} takes {} entries from {}, of {}", sample, slice.count,
                     slice.begin, size);
}

Status CheckMask(const char* field, size_t sample, Slice slice, size_t size, int64_t vocab_size) {
  const int64_t num_words = (vocab_size + 31) / 32;
  if (slice.count != 0 && slice.count != num_words) {
    return CorruptPlan(field, "of sample {} has {} words, expected {}", sample, slice.count,
                       num_words);
  }
  return CheckSlice(field, sample, slice, size);
}

Status CheckSamples(const StepPlan& plan, const PlanLimits& limits) {
  MOEBIUS_TRY(CheckTokens("ids", plan.ids, limits.vocab_size));
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const PlannedSample& sample = plan.samples[i];
    MOEBIUS_TRY(CheckValue("seq_idx", sample.seq_idx, 0, plan.num_seqs() - 1));
    MOEBIUS_TRY(CheckValue("given", sample.row.given, -1, limits.vocab_size - 1));
    MOEBIUS_TRY(CheckValue("num_logprobs", sample.row.num_logprobs, -1, limits.vocab_size));
    MOEBIUS_TRY(CheckSlice("output", i, sample.output, plan.ids.size()));
    MOEBIUS_TRY(CheckSlice("counts_begin", i, {sample.counts_begin, sample.output.count},
                           plan.counts.size()));
    MOEBIUS_TRY(CheckSlice("banned", i, sample.banned, plan.ids.size()));
    MOEBIUS_TRY(CheckMask("mask", i, sample.mask, plan.masks.size(), limits.vocab_size));
  }
  return {};
}

}  // namespace moebius::engine
