#include "moe/balance/replicas.h"

#include <algorithm>

namespace moebius::moe {
namespace {

struct ExpertShare {
  double share = 0;  // load / copies
  int copies = 1;
  int32_t expert = 0;
};

// Strict order: whether b gets the next copy before a.
struct LaterShare {
  ShareTie tie;

  bool operator()(const ExpertShare& a, const ExpertShare& b) const {
    if (a.share != b.share) return a.share < b.share;
    if (tie == ShareTie::kHighestExpert) return a.expert < b.expert;
    if (tie == ShareTie::kFewestCopies && a.copies != b.copies) return a.copies > b.copies;
    return a.expert > b.expert;
  }
};

}  // namespace

std::vector<int32_t> ExtraCopies(std::span<const double> load, int num_extra, ShareTie tie,
                                 int max_copies) {
  const LaterShare later{tie};
  std::vector<ExpertShare> heap;
  std::vector<ExpertShare> full;
  heap.reserve(load.size());
  for (size_t e = 0; e < load.size(); ++e) heap.push_back({load[e], 1, static_cast<int32_t>(e)});
  std::make_heap(heap.begin(), heap.end(), later);

  std::vector<int32_t> extra;
  extra.reserve(static_cast<size_t>(num_extra));
  while (static_cast<int>(extra.size()) < num_extra) {
    if (heap.empty()) {  // all are full: more copies than there are ranks
      heap.swap(full);
      max_copies = INT_MAX;
      std::make_heap(heap.begin(), heap.end(), later);
    }
    std::pop_heap(heap.begin(), heap.end(), later);
    ExpertShare& next = heap.back();
    if (next.copies >= max_copies) {
      full.push_back(next);
      heap.pop_back();
      continue;
    }
    extra.push_back(next.expert);
    ++next.copies;
    next.share = load[static_cast<size_t>(next.expert)] / next.copies;
    std::push_heap(heap.begin(), heap.end(), later);
  }
  return extra;
}

}  // namespace moebius::moe
