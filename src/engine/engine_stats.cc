#include "engine/engine_stats.h"

#include <algorithm>
#include <iterator>

namespace moebius::engine {

void DurationStats::Add(double seconds) {
  static_assert(std::size(kBounds) + 1 == kNumBuckets);
  ++count;
  sum += seconds;
  max = std::max(max, seconds);
  ++buckets[std::lower_bound(std::begin(kBounds), std::end(kBounds), seconds) -
            std::begin(kBounds)];
}

}  // namespace moebius::engine
