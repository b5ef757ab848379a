// What a step drew as one flat block of bytes, and back: from the rank that draws to the one that
// planned. Plain records in host byte order. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/step_runner.h"

namespace moebius::engine {

// Of `output`: step_id, sampled, top tokens and their logprobs; its times and counts stay behind.
std::vector<std::byte> EncodeOutput(const StepOutput& output);

// kCorrupt: lengths or places that contradict each other.
Result<StepOutput> DecodeOutput(std::span<const std::byte> block);

}  // namespace moebius::engine
