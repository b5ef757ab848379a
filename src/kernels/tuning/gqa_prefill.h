// Which sequences of a step attend in tiles of 128 queries of one head on Hopper's tensor cores
// (cuda/attention/gqa_prefill.h), and in which order. The tiles' kernel computes several times as
// fast as the one for all shapes (gqa.h), but cuts no context: it wants full tiles, and enough of
// them. Pure functions of lengths that the scheduler knows. No CUDA here; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tuning/attention_form.h"
#include "kernels/tuning/attention_splits.h"

namespace moebius::kernels {

constexpr int64_t kGqaTile = 128;  // of queries, and of positions

// Whether there is a kernel for it.
bool FitsGqaPrefill(const AttentionShape& shape);

struct GqaPrefillPlan {
  std::vector<AttentionItem> sequences;  // in the order of their rows
  std::vector<AttentionItem> tiles;      // theirs, those with most work first
  int64_t num_keys = 0;                  // of all their contexts
};

// sequences: whole, in the order of their rows. num_heads: of queries.
GqaPrefillPlan PlanGqaPrefill(std::span<const AttentionItem> sequences, int num_heads, int num_sms);

}  // namespace moebius::kernels
