// The filters ("x|upper"): jinja2's, with transformers' `tojson`. Tables, any thread.
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "text/jinja/builtin.h"

namespace moebius::text::jinja {

// Null when there is none, or when it is one of jinja2's that is not supported.
const Builtin* FindFilter(std::string_view name);
// What to say then.
Error UnknownFilter(std::string_view name);

// The tables behind FindFilter, one a file.
std::span<const Builtin> TextFilters();
std::span<const Builtin> SequenceFilters();
std::span<const Builtin> SelectionFilters();
std::span<const Builtin> ValueFilters();

}  // namespace moebius::text::jinja
