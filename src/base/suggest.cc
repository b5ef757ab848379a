#include "base/suggest.h"

#include <algorithm>

namespace moebius {

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> before(b.size() + 1);  // two rows up
  std::vector<int> above(b.size() + 1);
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int change = a[i - 1] == b[j - 1] ? 0 : 1;
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

std::string Nearest(std::string_view name, const std::vector<std::string>& candidates) {
  // Leading dashes are no letters that could be right.
  const size_t length = name.size() - std::min(name.find_first_not_of('-'), name.size());
  if (length < 3) return "";
  std::string best;
  int best_distance = std::max(1, static_cast<int>(length) / 3) + 1;
  for (const std::string& candidate : candidates) {
    const int distance = EditDistance(name, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string DidYouMean(std::string_view name, const std::vector<std::string>& candidates) {
  const std::string nearest = Nearest(name, candidates);
  return nearest.empty() ? nearest : " (did you mean " + nearest + "?)";
}

}  // namespace moebius
