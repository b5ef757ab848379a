// JSON that flags take as text: what a parser lets pass, or knows better than the flag. Plain
// functions, any thread; JSON stays in the .cc file.
#pragma once

#include <string>

#include "base/result.h"

namespace moebius::app {

// kInvalidArgument: a key stands in a map twice, of which a parser takes the last, or a number is
// too large. The error begins with `name` and names the key. OK for text that is no JSON at all:
// the caller knows what it expects instead.
Status CheckJsonText(const std::string& name, const std::string& text);

}  // namespace moebius::app
