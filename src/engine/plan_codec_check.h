// Whether a plan that came from another process leads nowhere outside its own lists, the KV cache
// and the vocabulary. Pure functions, any thread; errors are kCorrupt and name the field.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <span>
#include <utility>

#include "base/result.h"
#include "engine/plan_codec.h"

namespace moebius::engine {

template <typename... Args>
tl::unexpected<Error> CorruptPlan(const char* field, fmt::format_string<Args...> format,
                                  Args&&... args) {
  return MakeError(ErrorCode::kCorrupt, "step plan: {} {}", field,
                   fmt::format(format, std::forward<Args>(args)...));
}

Status CheckCount(const char* field, size_t count, int64_t expected);
Status CheckTokens(const char* field, std::span<const TokenId> tokens, int64_t vocab_size);
// Of a list of `size` entries.
Status CheckSlice(const char* field, size_t sample, PlannedSample::Slice slice, size_t size);
// A mask is whole or not there.
Status CheckMask(const char* field, size_t sample, PlannedSample::Slice slice, size_t size,
                 int64_t vocab_size);

// Rows, sequences, block table, logit rows.
Status CheckRows(const StepPlan& plan, const PlanLimits& limits);

// What samples say of the plan's own lists.
Status CheckSamples(const StepPlan& plan, const PlanLimits& limits);

}  // namespace moebius::engine
