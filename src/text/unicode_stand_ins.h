// Characters younger than PCRE2's Unicode tables, which regular expressions would take for
// unassigned (new emoji, among others). A search looks at a copy of the text in which an older
// character of the same general category and size stands in for each. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace moebius::text {

// Code points `first` to `last`, all of one category, and what stands in for them.
struct StandIn {
  char32_t first;
  char32_t last;
  char32_t stand_in;
};
extern const StandIn kStandIns[];  // ascending
extern const int kNumStandIns;

// Whether `text` (valid) has such characters; if so, `copy` becomes the text with stand-ins, whose
// characters have the places they have in `text`.
bool UseStandIns(std::string_view text, std::string& copy);

}  // namespace moebius::text
