#include "moe/exchange/protocol.h"

#include <algorithm>

#include "base/math.h"
#include "comm/signal.h"

namespace moebius::moe {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

ExchangeLayout LayOutExchange(const ExchangeShape& shape) {
  ExchangeLayout layout;
  size_t at = 0;
  const auto take = [&at](int64_t count, size_t bytes) {
    const size_t begin = at;
    at = RoundUp(at + static_cast<size_t>(count) * bytes, kAlignment);
    return begin;
  };
  const int64_t rows = RegionRow(shape, shape.num_ranks, 0);
  const int64_t pairs = rows * shape.top_k;
  const auto row_bytes = static_cast<size_t>(shape.row_bytes());
  layout.dispatch_flags = take(shape.num_ranks, sizeof(comm::Signal));
  layout.combine_flags = take(shape.num_ranks, sizeof(comm::Signal));
  layout.counts = take(shape.num_ranks * shape.slots_per_rank(), sizeof(int32_t));
  layout.tokens = take(rows, sizeof(int32_t));
  layout.slots = take(pairs, sizeof(int32_t));
  layout.ordinals = take(pairs, sizeof(int32_t));
  layout.weights = take(pairs, sizeof(float));
  layout.rows = take(rows, row_bytes);
  layout.results = take(shape.deterministic ? shape.max_tokens * shape.top_k : rows, row_bytes);
  layout.bytes = at;
  return layout;
}

void AssignRoutes(const ExchangeShape& shape, std::span<const int32_t> slots,
                  const Routes& routes) {
  const int64_t k = shape.top_k;
  const auto slots_per_rank = static_cast<int32_t>(shape.slots_per_rank());
  const auto max_tokens = static_cast<int32_t>(shape.max_tokens);
  std::ranges::fill(routes.counts, 0);
  std::ranges::fill(routes.rows_to, 0);
  std::ranges::fill(routes.rows, -1);
  const auto num_pairs = static_cast<int64_t>(slots.size());
  for (int64_t begin = 0; begin < num_pairs; begin += k) {
    int32_t* const rows = routes.rows.data() + begin;
    int64_t num_rows = 0;
    for (int64_t pair = begin; pair < begin + k; ++pair) {
      const int32_t slot = slots[static_cast<size_t>(pair)];
      if (slot < 0) continue;
      routes.ordinals[static_cast<size_t>(pair)] = routes.counts[static_cast<size_t>(slot)]++;
      const int32_t receiver = slot / slots_per_rank;
      const int32_t region = receiver * max_tokens;
      int64_t at = num_rows;
      while (at > 0 && rows[at - 1] >= region) --at;
      if (at < num_rows && rows[at] < region + max_tokens) continue;  // goes there already
      std::copy_backward(rows + at, rows + num_rows, rows + num_rows + 1);
      rows[at] = region + routes.rows_to[static_cast<size_t>(receiver)]++;
      ++num_rows;
    }
  }
}

void AssignPlaces(const ExchangeShape& shape, int64_t num_local, std::span<const int32_t> counts,
                  std::span<int32_t> offsets, std::span<int32_t> first) {
  int32_t place = 0;
  for (int64_t slot = 0; slot < num_local; ++slot) {
    offsets[static_cast<size_t>(slot)] = place;
    for (int64_t source = 0; source < shape.num_ranks; ++source) {
      first[static_cast<size_t>(source * num_local + slot)] = place;
      place += counts[static_cast<size_t>(source * shape.slots_per_rank() + slot)];
    }
  }
  offsets[static_cast<size_t>(num_local)] = place;
}

}  // namespace moebius::moe
