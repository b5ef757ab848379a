// How far tokens travel with a placement, by the rule that chooses among an expert's copies: a
// simulation with drawn choices. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/balance/policy.h"

namespace moebius::moe {

// The experts of each token [tokens x top_k]: top_k different ones, drawn by a layer's load without
// replacement (the largest of log load + Gumbel noise), each token for itself. Real tokens choose
// experts that go together, which leaves more to gain. At least top_k experts must have load.
std::vector<int32_t> DrawTopK(std::span<const double> load, int64_t num_tokens, int top_k,
                              uint64_t seed);
// How often each expert is among them.
std::vector<double> CountChoices(std::span<const int32_t> choices, int num_experts);

enum class CopyRule : uint8_t {
  kNearest,  // ours (kernels::ChooseSlots): at home, else where the token goes anyway, else by hash
  // TensorRT-LLM's: in turn within a block of 1024 choices, where blocks and ranks begin with
  // different copies.
  kRoundRobin,
};

struct Locality {
  double distinct_ranks = 0;  // that the experts of a token lie on: it is sent once to each
  double remote_copies = 0;   // of those, others than its own
  double rank_imbalance = 0;  // max / mean - 1 of the choices computed on ranks
};

// Token t is on rank t % ranks. experts: the list of a layer, as PlanLayer makes it.
// kInvalidArgument: it is not a placement of the shape.
Result<Locality> MeasureLocality(const SlotShape& shape, std::span<const int32_t> experts,
                                 std::span<const int32_t> choices, int top_k, CopyRule rule);

}  // namespace moebius::moe
