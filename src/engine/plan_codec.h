// A StepPlan as one flat block of bytes, and back: how a step's plan reaches ranks that did not
// make it. Plain records in host byte order and no pointers: both sides are one build on one
// machine. Pure functions, any thread.
//
// Block: a header (ids, sizes, the length of each list), then the lists in one fixed order, each
// from a multiple of 8 bytes on. What requests own (seen tokens, biases, allowed ids) is copied in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/step_plan.h"

namespace moebius::engine {

// What the ranks that share plans have memory for.
struct PlanLimits {
  int64_t max_rows = 0;
  int64_t max_seqs = 0;
  int64_t max_blocks = 0;  // of one sequence
  int64_t block_size = 0;
  int64_t vocab_size = 0;
  int64_t num_kv_blocks = 0;
};

// A plan and the memory that the spans of its samples' rows point into.
struct DecodedPlan {
  DecodedPlan() = default;
  DecodedPlan(DecodedPlan&&) noexcept = default;
  DecodedPlan& operator=(DecodedPlan&&) noexcept = default;

  StepPlan plan;
  std::vector<TokenId> seen_tokens;
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<uint32_t> allowed_masks;
};

// with_samples false: for ranks that draw nothing. Their plan has as many samples, but with no
// wishes and no lists.
size_t EncodedBytes(const StepPlan& plan, bool with_samples = true);

// block: EncodedBytes(plan, with_samples) bytes.
void Encode(const StepPlan& plan, std::span<std::byte> block, bool with_samples = true);

// Every length and index is checked, against the block and the limits: no plan that comes out of
// this leads a reader outside its lists, the KV cache or the vocabulary. (A PreviousRow is checked
// against max_rows alone: only the runner knows how many the step before drew.) kCorrupt names the
// field, what was found and what was expected.
Result<DecodedPlan> Decode(std::span<const std::byte> block, const PlanLimits& limits);

// Of the largest plan whose samples bring no lists. There is no useful bound on lists: one request
// may bring a bias for every token, and any number of stop ids.
size_t MaxPlanBytes(const PlanLimits& limits);

}  // namespace moebius::engine
