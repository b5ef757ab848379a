// How tokens reach the slots that serve them and how the results come home: dispatch, then combine,
// once a MoE layer. One interface whatever carries the rows. Called by the device thread; between
// Dispatch and Combine of one layer no other layer may use the same exchange.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"
#include "tensor/arena.h"
#include "tensor/view.h"

namespace moebius::moe {

struct DispatchArgs {
  Mat rows;                        // [T, H] act: this rank's tokens
  std::span<const int32_t> slots;  // [T * k]: the slot of each (token, choice) pair; negative: none
  int64_t k = 1;
  int64_t num_slots = 0;
};

// What this rank has to compute: rows grouped by its slots. The views live in the arena given to
// Dispatch, and with it.
struct DispatchedRows {
  Mat rows;                          // input rows
  std::span<const int32_t> offsets;  // [slots + 1]: places of each slot
  std::span<const int32_t>
      pairs;  // by place; the input row of a place is pairs[place] / rows_per_pair
  int64_t rows_per_pair = 1;
  int64_t max_places = 0;  // places that any slots may yield: the size of expert buffers
};

struct CombineArgs {
  Mat expert_rows;                 // [places, H] act: the slots' results, by place
  std::span<const float> weights;  // [T * k] router weights; empty: all 1
  Mat shared;                      // [T, H] act: the shared expert's rows; data null: none
  Mat out;                         // [T, H] act
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  // `arena` gives what the result needs until Combine.
  virtual DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                  Arena& arena) = 0;
  // What Dispatch takes from the arena at most.
  virtual size_t ArenaBytes(int64_t num_pairs, int64_t num_slots) const = 0;
  // Sums each token's rows in the order of its choices.
  virtual void Combine(kernels::ExecContext& ctx, const CombineArgs& args) = 0;
};

}  // namespace moebius::moe
