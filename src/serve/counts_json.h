// GET /eplb/counts: the tokens that every expert got since the start, by rank, layer and phase:
// what `moebius eplb record` asks for and plans are made from. A pure function.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "moe/expert_stats.h"
#include "moe/placement.h"
#include "serve/server_stats.h"

namespace moebius::serve {

// {"num_experts", "num_experts_per_token", "layers": [the MoE layers' numbers among all layers],
// "epoch", "slots": [[the expert of each slot] by layer], "ranks": [{"decode": [[by expert] by
// layer], "prefill": likewise}]}. ranks: in order; one that has counted nothing yet has zeros.
// Lists are empty where a model has no experts, slots also where nobody has placed them.
std::string CountsJson(const ModelFacts& model, const moe::PlacementState& placement,
                       std::span<const moe::ExpertStats> ranks);

}  // namespace moebius::serve
