// The methods of str, list, tuple and dict that templates may call. Tables, any thread.
#pragma once

#include <string_view>

#include "text/jinja/builtin.h"

namespace moebius::text::jinja {

// Null when `name` is no method, or one that is not supported.
const Builtin* FindStringMethod(std::string_view name);
const Builtin* FindListMethod(std::string_view name);  // list and tuple
const Builtin* FindDictMethod(std::string_view name);
const Builtin* FindCyclerMethod(std::string_view name);

}  // namespace moebius::text::jinja
