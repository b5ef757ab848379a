// The tests ("x is defined"): jinja2's. Tables, any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/jinja/builtin.h"

namespace moebius::text::jinja {

// Null when there is none.
const Builtin* FindPredicate(std::string_view name);
Error UnknownPredicate(std::string_view name);

}  // namespace moebius::text::jinja
