// Python's ==, < and `in` on values. Plain functions; a Budget bounds what deep values may cost.
#pragma once

#include "base/result.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

// a == b. Never fails but for the budget. Elements of containers that are the same object are equal
// unseen.
Result<bool> Equal(const Value& a, const Value& b, Budget& budget);

// -1, 0, 1, or kUnordered (a NaN). Refused with Python's TypeError: values without an order between
// them.
inline constexpr int kUnordered = 2;
Result<int> Compare(const Value& a, const Value& b, Budget& budget);

// `item in container`.
Result<bool> Contains(const Value& container, const Value& item, Budget& budget);

// Equality of dict keys: hashable values only; tuples nest at most as deep as values do.
bool KeyEqual(const Value& a, const Value& b);

}  // namespace moebius::text::jinja
