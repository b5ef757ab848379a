// The sum that collectives make: element by element over the members' parts, float32, in the order
// of members from zero, rounded once. An element's bits depend on nothing else. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace moebius::comm {

// out[i] = sum over parts of part[i] for i in [0, count): float32 or bfloat16. `out` is none of the
// parts.
void SumParts(std::span<const std::byte* const> parts, DType dtype, int64_t count, std::byte* out);

}  // namespace moebius::comm
