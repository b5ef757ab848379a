// Python's sorted(): stable, by keys, with failing comparisons as errors. Plain function.
#pragma once

#include <vector>

#include "base/result.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

// The order of `keys`, as indices. With `reverse`, equal keys keep their order too.
Result<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool reverse,
                                        Budget& budget);

}  // namespace moebius::text::jinja
