// int("...") and float("...") of Python. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace moebius::text::jinja {

// Absent where Python raises ValueError. kUnsupported: beyond 64 bits.
Result<std::optional<int64_t>> ParseInt(std::string_view text, int64_t base);
std::optional<double> ParseFloat(std::string_view text);

}  // namespace moebius::text::jinja
