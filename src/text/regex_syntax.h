// From Oniguruma's Ruby syntax, which tokenizer.json is written for, to PCRE2's (with UTF, UCP and
// MULTILINE): what the two spell or mean differently is rewritten, what has no equivalent is an
// error that quotes it. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace moebius::text {

Result<std::string> TranslatePattern(std::string_view pattern);

}  // namespace moebius::text
