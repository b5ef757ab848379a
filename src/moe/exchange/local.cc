#include "moe/exchange/local.h"

#include "kernels/backend.h"

namespace moebius::moe {

DispatchedRows LocalExchange::Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                       Arena& arena) {
  const auto num_pairs = static_cast<int64_t>(args.slots.size());
  const auto ints = [&](int64_t count) {
    return std::span(arena.Alloc<int32_t>(count), static_cast<size_t>(count));
  };
  const std::span<int32_t> offsets = ints(args.num_slots + 1);
  const std::span<int32_t> pairs = ints(num_pairs);
  const std::span<int32_t> places = ints(num_pairs);
  kernels::GroupBySlot(ctx, {.slots = args.slots,
                             .num_slots = args.num_slots,
                             .offsets = offsets,
                             .pairs = pairs,
                             .places = places});
  if (ctx.backend->on_host) num_expert_rows_ += offsets.back();
  places_ = places;
  weights_ = args.weights;
  k_ = args.k;
  return {.rows = args.rows,
          .offsets = offsets,
          .pairs = pairs,
          .rows_per_pair = args.k,
          .places = places,
          .weights = args.weights,
          .max_places = num_pairs};
}

size_t LocalExchange::ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const {
  return static_cast<size_t>(num_slots + 1 + 2 * max_rows * k) * sizeof(int32_t) +
         3 * Arena::kAlignment;
}

void LocalExchange::Combine(kernels::ExecContext& ctx, const CombineArgs& args) {
  kernels::WeightedReduce(ctx, {.rows = args.expert_rows,
                                .places = places_,
                                .weights = args.weighted ? weights_ : std::span<const float>(),
                                .k = k_,
                                .shared = args.shared,
                                .out = args.out});
}

}  // namespace moebius::moe
