// JSON that flags take as text. (model/json_text.h reads files: other words, and keys of the
// outermost object alone.) Plain functions, any thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace moebius::app {

// kInvalidArgument: a key stands in a map twice, of which a parser takes the last, or a number is
// too large. The error begins with `name` and names the key. Text that is no JSON at all gives a
// discarded value: the caller knows what it expects instead.
Result<nlohmann::json> ParseJsonText(const std::string& name, const std::string& text);

}  // namespace moebius::app
