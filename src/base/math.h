// Whole-number arithmetic that several rooms need.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moebius {

// The least n with n * b >= a, for a >= 0 and b > 0.
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The least multiple of `unit` that is not below `bytes`.
constexpr size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace moebius
