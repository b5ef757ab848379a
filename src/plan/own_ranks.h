// What Moebius's own ranks keep beside weights and KV: the exchange's regions, the communicators
// and the workspace of a step, by the rules of the code that takes them (moe/exchange/protocol.h,
// comm/shared_communicator.h, model/moe_layer.cc). Private to plan/.
#pragma once

#include "plan/memory.h"

namespace moebius::plan {

// Regions of one rank; no rows grouped by slot: products gather them from the regions.
ExchangeMemory OwnRanksExchange(const ModelShape& model, const layout::ParallelLayout& layout,
                                const MemoryInput& input);

// One rank's share of the memory of its communicators.
double OwnRanksCommunicators(const ModelShape& model, const layout::ParallelLayout& layout,
                             const MemoryInput& input);

// The buffers of the widest block of a step of max_batched_tokens rows, and logits.
double OwnRanksWorkspace(const ModelShape& model, const layout::ParallelLayout& layout,
                         const MemoryInput& input);

}  // namespace moebius::plan
