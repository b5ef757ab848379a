// What a step needs beside weights, KV and exchange. Private to plan/.
#pragma once

#include "plan/memory.h"

namespace moebius::plan {

// Hidden rows of the largest step, the widest layer's slices, rows of experts where nothing is
// exchanged (worst case, chunked at kGroupedBudget), logits of a decode step, and the fixed part.
double ActivationBytes(const ModelShape& model, const layout::ParallelLayout& layout,
                       const MemoryInput& input);

// Steps whose expert loads EPLB remembers.
constexpr double kLoadWindow = 1000;

}  // namespace moebius::plan
