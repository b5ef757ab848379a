// Python's "text %s" % values. Plain functions.
#pragma once

#include "base/result.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class Interpreter;

// `format` is a str; `values` a tuple, a dict for %(name)s, or one value.
Result<Value> PercentFormat(Interpreter& interpreter, const Value& format, const Value& values);

}  // namespace moebius::text::jinja
