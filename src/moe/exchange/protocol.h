// The exchange's arithmetic: who owns which slot, the number of a call, where a row lies in a
// region, and which position or place a row gets. Plain functions over plain memory, no state; any
// thread. (The kernels' twin for GPUs: kernels/cuda/exchange/protocol.h.)
//
// Every rank has a block of memory that its peers write. Three counts name a row:
// - the *position* of a token among those that its home rank sends to one receiver; with the home
//   rank it names a row of the receiver's region, and of the region where results come home;
// - a *pair* of a received row and a choice: row * top_k + choice;
// - the *place* of a pair in the receiver's order grouped by slot.
//
// Why regions may be used again without a barrier: every rank flags every rank in both halves of
// every call, with no rows too. Who has seen all combine flags of call n knows that its peers have
// read what call n sent them, so call n + 1 may overwrite it; who has seen all dispatch flags of
// n + 1 knows that its peers have read the results of n.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace moebius::moe {

// What all ranks of a group agree on.
struct ExchangeShape {
  int num_ranks = 1;
  int64_t num_slots = 1;   // of all ranks
  int64_t max_tokens = 1;  // that a rank may send in one call
  int64_t top_k = 1;
  int64_t hidden = 1;
  DType act = DType::kF32;
  // Rows come home un-summed, one a (token, choice), and are added in the order of the choices: the
  // bits of one rank alone. Else a rank sums what it computed for a token, and the home adds the
  // sums in rank order.
  bool deterministic = false;

  constexpr int64_t slots_per_rank() const { return (num_slots + num_ranks - 1) / num_ranks; }
  constexpr int64_t row_bytes() const { return hidden * static_cast<int64_t>(SizeOf(act)); }
};

// Slots [FirstSlot(rank), FirstSlot(rank + 1)) lie on `rank`: ceil(S / R) each, the last ranks have
// fewer, or none.
constexpr int64_t FirstSlot(const ExchangeShape& shape, int rank) {
  const int64_t first = rank * shape.slots_per_rank();
  return first < shape.num_slots ? first : shape.num_slots;
}
constexpr int64_t NumLocalSlots(const ExchangeShape& shape, int rank) {
  return FirstSlot(shape, rank + 1) - FirstSlot(shape, rank);
}

// The number of a call, from the agreed step and the calls before it in the step; compared for
// equality. A flag always holds the number of the call before, so one that comes again after 65,536
// steps cannot be taken for another.
constexpr uint32_t kCallsPerStep = 1 << 16;
constexpr uint32_t CallNumber(int64_t step, uint32_t call) {
  return static_cast<uint32_t>(step) * kCallsPerStep + call + 1;
}

// Row of a region [rank][max_tokens].
constexpr int64_t RegionRow(const ExchangeShape& shape, int rank, int64_t position) {
  return rank * shape.max_tokens + position;
}

// Byte offsets in a rank's block; `source`: who sent, `owner`: who computed.
struct ExchangeLayout {
  size_t dispatch_flags = 0;  // comm::Signal [source]
  size_t combine_flags = 0;   // comm::Signal [owner]
  size_t counts = 0;          // int32 [source][slots_per_rank]: pairs a slot
  size_t tokens = 0;          // int32 [source][max_tokens]: index at home
  size_t slots = 0;           // int32 [source][max_tokens][top_k]: local slot; negative: elsewhere
  size_t ordinals = 0;        // int32 likewise: pairs of the same source and slot before this one
  size_t weights = 0;         // float likewise: the router's
  size_t rows = 0;            // act [source][max_tokens][hidden]
  size_t results = 0;         // act [owner][max_tokens][hidden], deterministic: [token][top_k][...]
  size_t bytes = 0;           // of the block
};
ExchangeLayout LayOutExchange(const ExchangeShape& shape);

// What a home rank decides about its tokens, walking them in order.
struct Routes {
  // [T * top_k], by token: the rows of region [receiver][max_tokens] that it goes to, ascending,
  // then -1. Each receiver of any of its slots once.
  std::span<int32_t> rows;
  std::span<int32_t> ordinals;  // [T * top_k], by pair
  std::span<int32_t> counts;    // [num_ranks * slots_per_rank]: pairs a slot
  std::span<int32_t> rows_to;   // [num_ranks]: tokens that go there
};
// slots: [T * top_k], negative: none.
void AssignRoutes(const ExchangeShape& shape, std::span<const int32_t> slots, const Routes& routes);

// Places of a receiver with `num_local` slots: within a slot by source, then by ordinal. offsets:
// [num_local + 1]; first: [num_ranks][num_local], the place of ordinal 0.
void AssignPlaces(const ExchangeShape& shape, int64_t num_local, std::span<const int32_t> counts,
                  std::span<int32_t> offsets, std::span<int32_t> first);

}  // namespace moebius::moe
