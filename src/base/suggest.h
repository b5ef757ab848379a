// The nearest name to one that nobody knows.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// Insertions, deletions, changes and swaps of neighbours that lead from `a` to `b` (optimal string
// alignment).
int EditDistance(std::string_view a, std::string_view b);

// The candidate that `name` most likely meant: fewest edits, at most one for three of its letters
// (leading dashes do not count); empty: none is near.
std::string Nearest(std::string_view name, const std::vector<std::string>& candidates);

// " (did you mean X?)", or nothing.
std::string DidYouMean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace moebius
