#include "moe/exchange/local.h"

#include "kernels/backend.h"

namespace moebius::moe {

kernels::GroupBySlotArgs RoomForGroups(std::span<const int32_t> slots, int64_t num_slots,
                                       Arena& arena) {
  const auto ints = [&](int64_t count) {
    return std::span(arena.Alloc<int32_t>(count), static_cast<size_t>(count));
  };
  const auto num_pairs = static_cast<int64_t>(slots.size());
  kernels::GroupBySlotArgs groups;
  groups.slots = slots;
  groups.num_slots = num_slots;
  groups.offsets = ints(num_slots + 1);
  groups.pairs = ints(num_pairs);
  groups.places = ints(num_pairs);
  return groups;
}

DispatchedRows LocalExchange::Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                       Arena& arena) {
  kernels::GroupBySlotArgs groups = args.groups;
  if (groups.offsets.empty()) {
    groups = RoomForGroups(args.slots, args.num_slots, arena);
    kernels::GroupBySlot(ctx, groups);
  }
  if (ctx.backend->on_host) num_expert_rows_ += groups.offsets.back();
  places_ = groups.places;
  weights_ = args.weights;
  k_ = args.k;
  return {.rows = args.rows,
          .offsets = groups.offsets,
          .pairs = groups.pairs,
          .rows_per_pair = args.k,
          .places = groups.places,
          .weights = args.weights,
          .max_places = std::ssize(args.slots)};
}

size_t LocalExchange::ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const {
  return static_cast<size_t>(num_slots + 1 + 2 * max_rows * k) * sizeof(int32_t) +
         3 * Arena::kAlignment;
}

void LocalExchange::Combine(kernels::ExecContext& ctx, const CombineArgs& args) {
  const kernels::WeightedReduceArgs sum = {
      .rows = args.expert_rows,
      .places = places_,
      .weights = args.weighted ? weights_ : std::span<const float>(),
      .k = k_,
      .shared = args.shared,
      .out = args.out};
  if (args.norm.out.data == nullptr) {
    kernels::WeightedReduce(ctx, sum);
  } else {
    kernels::ReduceAndNorm(ctx, {.sum = sum, .norm = args.norm});
  }
}

}  // namespace moebius::moe
