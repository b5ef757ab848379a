// The policies themselves, behind PlanLayer: their arguments are already checked. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/balance/policy.h"

namespace moebius::moe {

// DeepSeek's EPLB (github.com/deepseek-ai/EPLB): groups of experts are packed onto nodes, each
// node's spare slots go to its heaviest experts, and each node's slots are packed onto its ranks.
// All ties go to the lowest number.
SlotList PlanDeepSeek(const SlotShape& shape, std::span<const double> load);

// TensorRT-LLM's: the next copy to the largest share (ties: the highest expert); then the heaviest
// share (ties: the lowest expert) to the lightest rank with a free slot (ties: the lowest rank).
SlotList PlanTrtllm(const SlotShape& shape, std::span<const double> load);

// kImprove from `present`, or from a first placement where that is empty.
SlotList PlanImprove(const SlotShape& shape, std::span<const double> load,
                     std::span<const int32_t> present, const ImproveOptions& options);

// The start of kImprove: copies as ExtraCopies gives them, at most one a rank; the heaviest share
// to the lightest rank that has none of its expert.
SlotList FirstPlacement(const SlotShape& shape, std::span<const double> load);

// The experts of each node: groups packed by load, as many a node. num_nodes divides num_groups.
std::vector<std::vector<int32_t>> NodeExperts(std::span<const double> load, int num_groups,
                                              int num_nodes);

}  // namespace moebius::moe
