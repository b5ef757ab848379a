// How tokens reach the slots that serve them and how the results come home: dispatch, then combine,
// once a MoE layer. One interface whatever carries the rows. Called by the device thread; between
// Dispatch and Combine of one layer no other layer may use the same exchange.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "kernels/ops.h"
#include "moe/exchange/mode.h"
#include "tensor/arena.h"
#include "tensor/view.h"

namespace moebius::moe {

struct DispatchArgs {
  Mat rows;                        // [T, H] act: this rank's tokens
  std::span<const int32_t> slots;  // [T * k]: the slot of each (token, choice) pair; negative: none
  std::span<const float> weights;  // [T * k]: of the router; empty: all 1 (see brings_weights)
  int64_t k = 1;
  int64_t num_slots = 0;  // of all ranks
  int64_t most_rows = 0;  // that any rank brings, where that is known; else 0
  // Of the weights that read the rows, the same on every rank: what their products would quantise
  // may travel and arrive so.
  kernels::WeightFormat read_by = kernels::WeightFormat::kF32;
  // What grouping the slots gave, if that is done (see only_groups); else without offsets.
  kernels::GroupBySlotArgs groups = {};
};

// What this rank has to compute: rows grouped by its slots. The views live in the arena given to
// Dispatch, and with it.
struct DispatchedRows {
  Mat rows;                          // input rows: act, or fp8
  Mat row_scales = {};               // of fp8, as kernels::GroupedSwiGluArgs::a_scales
  std::span<const int32_t> offsets;  // [this rank's slots + 1]: places of each slot
  std::span<const int32_t>
      pairs;  // by place; the input row of a place is pairs[place] / rows_per_pair
  int64_t rows_per_pair = 1;
  std::span<const int32_t> places = {};  // by pair, where each has one or is negative; or empty
  std::span<const float> weights;        // by pair: the router's
  int64_t max_places = 0;     // places that any slots may yield: the size of expert buffers
  int64_t likely_places = 0;  // what is likely where that is far less; else 0
};

struct CombineArgs {
  Mat expert_rows;       // [places, H] act: the slots' results, by place
  bool weighted = true;  // by the router's weights; else all count 1
  Mat shared;            // [T, H] act: the shared expert's rows; data null: none
  Mat out;               // [T, H] act
  // What follows, of an exchange that norms(): norm.x is out, which is undefined afterwards.
  // norm.out.data null: nothing.
  kernels::RmsNormArgs norm = {};
};

// Rows that left this rank since the start, each once a rank that it went to.
struct ExchangeBytes {
  int64_t dispatch = 0;
  int64_t combine = 0;
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  // Calls until the next BeginStep belong to `step` and end by `deadline`. One rank alone waits for
  // nobody.
  virtual void BeginStep(int64_t /*step*/, std::chrono::steady_clock::time_point /*deadline*/) {}
  // The first failure: later calls return at once, with nothing to do.
  virtual Status status() const { return {}; }
  // How the last call of this step was dealt to threads; kAuto: there was none, or there is but one
  // way.
  virtual ExchangeMode mode() const { return ExchangeMode::kAuto; }
  virtual ExchangeBytes bytes() const { return {}; }
  // Rows that the slots of this rank were given since the start, each once a slot. A device keeps
  // them to itself: 0.
  virtual int64_t num_expert_rows() const { return 0; }
  // Of this rank's own tokens, likewise: what it computed at home.
  virtual int64_t num_home_rows() const { return 0; }

  // DispatchedRows has weights. Who needs them (experts that scale what they read) and does not get
  // them scales rows of one choice before they leave, and dispatches without weights.
  virtual bool brings_weights() const { return true; }
  // Combine takes CombineArgs::norm.
  virtual bool norms() const { return false; }

  // All that Dispatch does is to group the pairs by slot: who routes them may do both in one
  // (kernels::RouteToPlaces) and dispatch with `groups`, which then live until Combine.
  virtual bool only_groups() const { return false; }

  // `arena` gives what the result needs until Combine.
  virtual DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                  Arena& arena) = 0;
  // What Dispatch takes from the arena at most, where no rank has more than so many rows.
  virtual size_t ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const = 0;
  // Places that the slots of this rank may then get at most.
  virtual int64_t MaxPlaces(int64_t max_rows, int64_t k) const = 0;
  // Sums each token's rows in the order of its choices.
  virtual void Combine(kernels::ExecContext& ctx, const CombineArgs& args) = 0;
};

}  // namespace moebius::moe
