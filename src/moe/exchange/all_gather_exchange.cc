#include "moe/exchange/all_gather_exchange.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace moebius::moe {

AllGatherExchange::AllGatherExchange(const ExchangeShape& shape, comm::Communicator& comm)
    : shape_(shape), comm_(comm), row_begin_(static_cast<size_t>(shape.num_ranks) + 1) {
  MOEBIUS_CHECK_EQ(comm.size(), shape.num_ranks);
}

void AllGatherExchange::BeginStep(int64_t step, std::chrono::steady_clock::time_point deadline) {
  comm_.BeginStep(step, deadline);
}

size_t AllGatherExchange::ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const {
  MOEBIUS_CHECK_EQ(num_slots, shape_.num_slots);
  const int64_t rows = max_rows * shape_.num_ranks;
  const int64_t kept = shape_.deterministic ? (rows + max_rows) * k : rows;  // partial_, own_
  const int64_t words = 5 * rows * k + NumLocalSlots(shape_, comm_.rank()) + 1;
  return static_cast<size_t>((rows + kept) * shape_.row_bytes()) +
         static_cast<size_t>(words) * sizeof(int32_t) + 9 * Arena::kAlignment;
}

int64_t AllGatherExchange::MaxPlaces(int64_t max_rows, int64_t k) const {
  return shape_.num_ranks * max_rows * std::min(k, NumLocalSlots(shape_, comm_.rank()));
}

DispatchedRows AllGatherExchange::Nothing(Arena& arena) const {
  const int64_t num_offsets = NumLocalSlots(shape_, comm_.rank()) + 1;
  int32_t* const offsets = arena.Alloc<int32_t>(num_offsets);
  std::fill_n(offsets, num_offsets, 0);
  DispatchedRows nothing;
  nothing.rows = Mat(nullptr, shape_.act, 0, shape_.hidden);
  nothing.offsets = {offsets, static_cast<size_t>(num_offsets)};
  return nothing;
}

DispatchedRows AllGatherExchange::Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                           Arena& arena) {
  const int64_t k = shape_.top_k;
  MOEBIUS_CHECK_EQ(args.k, k);
  MOEBIUS_CHECK_EQ(args.num_slots, shape_.num_slots);
  const int64_t sent = comm_.bytes().gather;
  const int64_t count = args.rows.rows;
  const auto counts = std::span(row_begin_).subspan(1);
  comm_.AllGather(std::as_bytes(std::span(&count, 1)), std::as_writable_bytes(counts));
  if (!status()) return Nothing(arena);
  row_begin_[0] = 0;
  for (size_t m = 1; m < row_begin_.size(); ++m) row_begin_[m] += row_begin_[m - 1];

  const int64_t all = row_begin_.back();
  const Mat rows = arena.AllocMat(shape_.act, all, shape_.hidden);
  const Mat slots = arena.AllocMat(DType::kI32, all, k);
  const Mat weights = arena.AllocMat(DType::kF32, all, k);
  const auto of = [&](const void* data, DType dtype) {
    return Mat(const_cast<void*>(data), dtype, count, k);
  };
  comm_.AllGatherRows(args.rows, rows, row_begin_);
  comm_.AllGatherRows(of(args.slots.data(), DType::kI32), slots, row_begin_);
  comm_.AllGatherRows(of(args.weights.data(), DType::kF32), weights, row_begin_);
  bytes_.dispatch += comm_.bytes().gather - sent;
  if (!status()) return Nothing(arena);

  const auto num_pairs = static_cast<size_t>(all * k);
  const auto ints = [&](size_t num) {
    return std::span(arena.Alloc<int32_t>(static_cast<int64_t>(num)), num);
  };
  const std::span<int32_t> local(static_cast<int32_t*>(slots.data), num_pairs);
  const auto first = static_cast<int32_t>(FirstSlot(shape_, comm_.rank()));
  const auto num_local = static_cast<int32_t>(NumLocalSlots(shape_, comm_.rank()));
  for (int32_t& slot : local) {
    slot = slot < first || slot >= first + num_local ? -1 : slot - first;
  }
  const std::span<int32_t> offsets = ints(static_cast<size_t>(num_local) + 1);
  const std::span<int32_t> pairs = ints(num_pairs);
  places_ = ints(num_pairs);
  kernels::GroupBySlot(ctx, {.slots = local,
                             .num_slots = num_local,
                             .offsets = offsets,
                             .pairs = pairs,
                             .places = places_});
  num_expert_rows_ += offsets.back();
  const auto own = local.subspan(static_cast<size_t>(row_begin_[rank()] * k), args.slots.size());
  num_home_rows_ += std::ranges::count_if(own, [](int32_t slot) { return slot >= 0; });
  weights_ = {static_cast<const float*>(weights.data), num_pairs};
  own_weights_ = args.weights;
  partial_ = arena.AllocMat(shape_.act, shape_.deterministic ? all * k : all, shape_.hidden);
  if (shape_.deterministic) {
    own_ = arena.AllocMat(shape_.act, count * k, shape_.hidden);
    own_rows_ = ints(args.slots.size());
    for (size_t pair = 0; pair < own_rows_.size(); ++pair) {
      own_rows_[pair] = args.slots[pair] < 0 ? -1 : static_cast<int32_t>(pair);
    }
  }
  return {.rows = rows,
          .offsets = offsets,
          .pairs = pairs,
          .rows_per_pair = k,
          .weights = weights_,
          .max_places = offsets.back()};
}

void AllGatherExchange::Combine(kernels::ExecContext& ctx, const CombineArgs& args) {
  if (!status()) return;
  const int64_t sent = comm_.bytes().reduce;
  if (shape_.deterministic) {
    CombineInOrder(ctx, args);
  } else {
    // The home's own part takes the shared expert along: no rounding of its own.
    for (size_t m = 0; m + 1 < row_begin_.size(); ++m) {
      const int64_t begin = row_begin_[m];
      const int64_t count = row_begin_[m + 1] - begin;
      const auto first = static_cast<size_t>(begin * shape_.top_k);
      const auto num_pairs = static_cast<size_t>(count * shape_.top_k);
      kernels::WeightedReduce(ctx, {.rows = args.expert_rows,
                                    .places = places_.subspan(first, num_pairs),
                                    .weights = args.weighted ? weights_.subspan(first, num_pairs)
                                                             : std::span<const float>(),
                                    .k = shape_.top_k,
                                    .shared = m == rank() ? args.shared : Mat(),
                                    .out = partial_.Rows(begin, count)});
    }
    comm_.ReduceScatter(partial_, args.out, row_begin_);
  }
  bytes_.combine += comm_.bytes().reduce - sent;
}

// Each (token, choice) has one rank with a row, the others add zeros: the sum is that row.
void AllGatherExchange::CombineInOrder(kernels::ExecContext& ctx, const CombineArgs& args) {
  const auto row_bytes = static_cast<size_t>(shape_.row_bytes());
  ctx.pool->RunRanges(partial_.rows, 64, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t pair = begin; pair < end; ++pair) {
      const int32_t place = places_[static_cast<size_t>(pair)];
      if (place < 0) {
        std::memset(partial_.RowBytes(pair), 0, row_bytes);
      } else {
        std::memcpy(partial_.RowBytes(pair), args.expert_rows.RowBytes(place), row_bytes);
      }
    }
  });
  std::vector<int64_t> pair_begin = row_begin_;
  for (int64_t& pair : pair_begin) pair *= shape_.top_k;
  comm_.ReduceScatter(partial_, own_, pair_begin);
  if (!status()) return;
  kernels::WeightedReduce(ctx, {.rows = own_,
                                .places = own_rows_,
                                .weights = args.weighted ? own_weights_ : std::span<const float>(),
                                .k = shape_.top_k,
                                .shared = args.shared,
                                .out = args.out});
}

}  // namespace moebius::moe
