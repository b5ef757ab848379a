// Operations on text that methods and filters share, with Python's meaning. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/budget.h"

namespace moebius::text::jinja {

// Call before searching `wanted` in `text`: pays for the worst case, in which each place almost
// matches.
Status ChargeSearch(std::string_view text, std::string_view wanted, Budget& budget);

// str.split and str.rsplit; without separator, on runs of whitespace. max_splits < 0: no limit.
std::vector<std::string_view> SplitText(std::string_view text,
                                        const std::optional<std::string>& separator,
                                        int64_t max_splits, bool from_right);
// str.splitlines.
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);
// str.replace; max_count < 0: all.
Result<std::string> ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                                int64_t max_count, Budget& budget);
std::string RepeatText(std::string_view text, int64_t count);
// str.islower, str.isupper: some cased character, and none of the other case.
bool IsLowerText(std::string_view text);
bool IsUpperText(std::string_view text);

}  // namespace moebius::text::jinja
