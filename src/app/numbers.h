// Numbers as flags have them. Plain functions, any thread; every error is kInvalidArgument and
// names the flag, what was found and what is expected.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/result.h"

namespace moebius::app {

// More tokens than anybody brings, and few enough to be counted and multiplied.
inline constexpr int64_t kMostTokens = int64_t{1} << 24;

// All of `text` is a whole number from `low` to `high`. T: int32_t, int64_t or uint64_t.
template <typename T>
Result<T> ParseWhole(const std::string& flag, const std::string& text,
                     T low = std::numeric_limits<T>::min(), T high = std::numeric_limits<T>::max());

// Any number, NaN and infinities too: what is right depends on the field. T: float or double.
template <typename T>
Result<T> ParseReal(const std::string& flag, const std::string& text);

// A count that may end in a unit: 32k, 4g (powers of 1000), 32K, 4G, 4Gi, 4GiB (of 1024), 1.5G.
Result<int64_t> ParseSize(const std::string& flag, const std::string& text);

// "1 token", "2 tokens".
std::string Count(int64_t count, const char* what);

}  // namespace moebius::app
