// The text of a quoted string in a template. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace moebius::text::jinja {

// "\r\n" and "\r" become "\n".
std::string NormalizeNewlines(std::string_view text);

// Python's escapes, decoded: `literal` is what stands between the quotes.
Result<std::string> DecodeStringLiteral(std::string_view literal);

}  // namespace moebius::text::jinja
