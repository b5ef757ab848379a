// Python's "text {} {name}".format(...). Plain functions.
#pragma once

#include "base/result.h"
#include "text/jinja/builtin.h"

namespace moebius::text::jinja {

// The method of str.
Result<Value> StrFormatMethod(Interpreter& interpreter, const Value& subject,
                              const BoundArgs& args);

}  // namespace moebius::text::jinja
