// Python's str() and repr() of values. Plain functions; the budget bounds what shared or deep
// values may print.
#pragma once

#include <string>

#include "base/result.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

// str(x): what {{ x }} prints.
Result<std::string> ToStr(const Value& value, Budget& budget);
// repr(x): str with strings quoted and escaped.
Result<std::string> ToRepr(const Value& value, Budget& budget);
// repr() of a string and of a float (the shortest digits that read back the same).
std::string StringRepr(std::string_view text);
std::string FloatRepr(double value);

}  // namespace moebius::text::jinja
