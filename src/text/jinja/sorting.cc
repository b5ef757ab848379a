#include "text/jinja/sorting.h"

#include <algorithm>
#include <numeric>

#include "text/jinja/compare.h"

namespace moebius::text::jinja {

// std::sort may run wild on an order that is none (NaN) and cannot stop at an error: merging by
// hand does neither.
Result<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool reverse,
                                        Budget& budget) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<size_t> merged(keys.size());
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      size_t left = begin;
      const size_t middle = std::min(begin + width, order.size());
      size_t right = middle;
      const size_t end = std::min(begin + 2 * width, order.size());
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          MOEBIUS_ASSIGN(const int order_of_right,
                         Compare(keys[order[right]], keys[order[left]], budget));
          take_right = order_of_right == (reverse ? 1 : -1);
        }
        merged[out] = order[take_right ? right++ : left++];
      }
    }
    order.swap(merged);
  }
  return order;
}

}  // namespace moebius::text::jinja
