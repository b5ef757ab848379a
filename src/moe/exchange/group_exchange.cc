#include "moe/exchange/group_exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/cpu/parallel.h"

namespace moebius::moe {
namespace {

// Rough cost of a row for one core: its metadata, and its bytes.
constexpr double kNsPerRow = 40;
constexpr double kNsPerByte = 0.12;

const char* HalfName(ExchangeHalf half) {
  return half == ExchangeHalf::kDispatch ? "dispatch" : "combine";
}

}  // namespace

size_t GroupExchange::NumBytes(const ExchangeShape& shape) {
  return static_cast<size_t>(shape.num_ranks) * LayOutExchange(shape).bytes;
}

GroupExchange::GroupExchange(const ExchangeShape& shape, comm::GroupInfo info,
                             std::span<std::byte> memory, GroupExchangeOptions options)
    : shape_(shape),
      layout_(LayOutExchange(shape)),
      memory_(memory),
      options_(std::move(options)),
      watch_(std::move(info)),
      counts_(static_cast<size_t>(shape.num_ranks * shape.slots_per_rank())),
      rows_to_(static_cast<size_t>(shape.num_ranks)),
      first_from_(static_cast<size_t>(shape.num_ranks) + 1) {
  MOEBIUS_CHECK_EQ(watch_.info().size(), shape.num_ranks);
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(shape));
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(memory.data()) % alignof(comm::Signal),
                   uintptr_t{0});
  MOEBIUS_CHECK_LE(RegionRow(shape, shape.num_ranks, 0) * shape.top_k, int64_t{INT32_MAX});
}

void GroupExchange::BeginStep(int64_t step, std::chrono::steady_clock::time_point deadline) {
  watch_.BeginStep(step, deadline);
  call_ = 0;
  mode_ = ExchangeMode::kAuto;
}

size_t GroupExchange::ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const {
  MOEBIUS_CHECK_EQ(num_slots, shape_.num_slots);
  const int64_t own_pairs = max_rows * k;
  const int64_t num_local = NumLocalSlots(shape_, rank());
  const int64_t ints = 3 * own_pairs + (num_local + 1) + size() * num_local + size() * own_pairs +
                       MaxPlaces(max_rows, k);
  return static_cast<size_t>(ints) * sizeof(int32_t) + 7 * Arena::kAlignment;
}

int64_t GroupExchange::MaxPlaces(int64_t max_rows, int64_t k) const {
  return size() * max_rows * std::min(k, NumLocalSlots(shape_, rank()));
}

comm::Signal& GroupExchange::FlagOf(ExchangeHalf half, int at, int from) const {
  const size_t offset =
      half == ExchangeHalf::kDispatch ? layout_.dispatch_flags : layout_.combine_flags;
  return At<comm::Signal>(at, offset)[from];
}

std::byte* GroupExchange::ResultRow(int home, int64_t row) const {
  return At<std::byte>(home, layout_.results) + row * shape_.row_bytes();
}

DispatchedRows GroupExchange::Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                                       Arena& arena) {
  MOEBIUS_CHECK_LE(args.rows.rows, shape_.max_tokens);
  MOEBIUS_CHECK(args.rows.rows == 0 ||
                (args.rows.dtype == shape_.act && args.rows.cols == shape_.hidden));
  MOEBIUS_CHECK_EQ(args.k, shape_.top_k);
  MOEBIUS_CHECK_EQ(args.num_slots, shape_.num_slots);
  MOEBIUS_CHECK_EQ(static_cast<int64_t>(args.slots.size()), args.rows.rows * args.k);
  MOEBIUS_CHECK_LT(call_, kCallsPerStep - 1);
  if (status()) {
    last_number_ = number_;
    number_ = CallNumber(watch_.step(), call_++);
    mode_ = ChooseMode(options_.mode, args.rows.rows, shape_.row_bytes());
    const auto ints = [&] {
      return std::span(arena.Alloc<int32_t>(args.rows.rows * args.k), args.slots.size());
    };
    routes_ = ints();
    ordinals_ = ints();
    AssignRoutes(shape_, args.slots,
                 {.rows = routes_, .ordinals = ordinals_, .counts = counts_, .rows_to = rows_to_});
    home_rows_ = routes_;
    home_weights_ = {};
    if (shape_.deterministic) {
      const std::span<int32_t> home_rows = ints();
      for (size_t pair = 0; pair < home_rows.size(); ++pair) {
        home_rows[pair] = args.slots[pair] < 0 ? -1 : static_cast<int32_t>(pair);
      }
      home_rows_ = home_rows;
      home_weights_ = args.weights;
    }
    Send(ctx, args);
    if (WaitForAll(ExchangeHalf::kDispatch)) return Group(ctx, arena);
  }
  const int64_t num_offsets = NumLocalSlots(shape_, rank()) + 1;
  int32_t* const offsets = arena.Alloc<int32_t>(num_offsets);
  std::fill_n(offsets, num_offsets, 0);
  DispatchedRows nothing;
  nothing.rows = Mat(At<std::byte>(rank(), layout_.rows), shape_.act, 0, shape_.hidden);
  nothing.offsets = {offsets, static_cast<size_t>(num_offsets)};
  return nothing;
}

void GroupExchange::Send(kernels::ExecContext& ctx, const DispatchArgs& args) {
  const int64_t num_tokens = args.rows.rows;
  const double row_ns = kNsPerRow + kNsPerByte * static_cast<double>(shape_.row_bytes());
  int64_t num_rows = 0;
  for (int to = 0; to < size(); ++to) {
    num_rows += rows_to_[static_cast<size_t>(to)];
    if (to != rank()) bytes_.dispatch += rows_to_[static_cast<size_t>(to)] * shape_.row_bytes();
  }
  if (mode_ == ExchangeMode::kLatency) {
    kernels::ForTasks(
        ctx, size(), row_ns * static_cast<double>(num_rows), [&](int64_t task, int /*thread*/) {
          const int to = After(task + 1);
          const int64_t first = RegionRow(shape_, to, 0);
          for (size_t i = 0; i < routes_.size() && rows_to_[static_cast<size_t>(to)] > 0; ++i) {
            const int64_t position = routes_[i] - first;
            if (position < 0 || position >= shape_.max_tokens) continue;
            WriteRow(args, static_cast<int64_t>(i) / shape_.top_k, to, position);
          }
          Flag(ExchangeHalf::kDispatch, to);
        });
    return;
  }
  const double rows_per_token =
      static_cast<double>(num_rows) / static_cast<double>(std::max<int64_t>(num_tokens, 1));
  kernels::ForRows(ctx, num_tokens, row_ns * std::max(rows_per_token, 0.1), [&](int64_t token) {
    const int32_t* const routes = routes_.data() + token * shape_.top_k;
    for (int64_t i = 0; i < shape_.top_k && routes[i] >= 0; ++i) {
      WriteRow(args, token, static_cast<int>(routes[i] / shape_.max_tokens),
               routes[i] % shape_.max_tokens);
    }
  });
  for (int i = 1; i <= size(); ++i) Flag(ExchangeHalf::kDispatch, After(i));
}

void GroupExchange::WriteRow(const DispatchArgs& args, int64_t token, int to,
                             int64_t position) const {
  const int64_t row = RegionRow(shape_, rank(), position);
  std::memcpy(At<std::byte>(to, layout_.rows) + row * shape_.row_bytes(), args.rows.RowBytes(token),
              static_cast<size_t>(shape_.row_bytes()));
  At<int32_t>(to, layout_.tokens)[row] = static_cast<int32_t>(token);
  const int64_t k = shape_.top_k;
  int32_t* const slots = At<int32_t>(to, layout_.slots) + row * k;
  int32_t* const ordinals = At<int32_t>(to, layout_.ordinals) + row * k;
  float* const weights = At<float>(to, layout_.weights) + row * k;
  const int64_t first = FirstSlot(shape_, to);
  const int64_t end = FirstSlot(shape_, to + 1);
  for (int64_t j = 0; j < k; ++j) {
    const auto pair = static_cast<size_t>(token * k + j);
    const int32_t slot = args.slots[pair];
    slots[j] = slot < first || slot >= end ? -1 : static_cast<int32_t>(slot - first);
    ordinals[j] = ordinals_[pair];
    weights[j] = args.weights.empty() ? 1.0F : args.weights[pair];
  }
}

void GroupExchange::Flag(ExchangeHalf half, int to) {
  uint32_t num_rows = 0;
  if (half == ExchangeHalf::kDispatch) {
    const int64_t num_slots = shape_.slots_per_rank();
    std::memcpy(At<int32_t>(to, layout_.counts) + rank() * num_slots,
                counts_.data() + to * num_slots, static_cast<size_t>(num_slots) * sizeof(int32_t));
    num_rows = static_cast<uint32_t>(rows_to_[static_cast<size_t>(to)]);
  }
  if (options_.hook && !options_.hook(half, to, number_)) return;
  comm::Raise(FlagOf(half, to, rank()), number_, num_rows);
}

bool GroupExchange::WaitForAll(ExchangeHalf half) {
  for (int i = 1; i <= size(); ++i) {
    const int from = After(i);
    uint32_t num_rows = 0;
    const comm::WaitEnd end =
        watch_.WaitOnly(FlagOf(half, rank(), from), number_, 0, from, &num_rows);
    if (end != comm::WaitEnd::kRaised) {
      const bool late = end == comm::WaitEnd::kDeadline;
      watch_.Fail(end, late ? FurthestBehind(half, from) : from, HalfName(half));
      return false;
    }
    if (half == ExchangeHalf::kCombine) continue;
    MOEBIUS_CHECK_LE(int64_t{num_rows}, shape_.max_tokens);
    first_from_[static_cast<size_t>(from) + 1] = num_rows;  // counts first
  }
  if (half == ExchangeHalf::kDispatch) {
    for (size_t s = 1; s < first_from_.size(); ++s) first_from_[s] += first_from_[s - 1];
  }
  return true;
}

// `member` is late, but perhaps only because it still waits for another one in the half before this
// one: that one is to blame.
int GroupExchange::FurthestBehind(ExchangeHalf half, int member) const {
  const bool in_combine = half == ExchangeHalf::kCombine;
  const ExchangeHalf before = in_combine ? ExchangeHalf::kDispatch : ExchangeHalf::kCombine;
  const uint32_t number = in_combine ? number_ : last_number_;
  for (int i = 0; i < size(); ++i) {
    const int suspect = (member + i) % size();
    for (int at = 0; at < size(); ++at) {
      const uint32_t seen = comm::SequenceOf(FlagOf(before, at, suspect).word.load());
      if (static_cast<int32_t>(seen - number) < 0) return suspect;
    }
  }
  return member;
}

template <typename Body>
void GroupExchange::ForSources(int64_t begin, int64_t end, const Body& body) const {
  const auto after = std::upper_bound(first_from_.begin(), first_from_.end(), begin);
  for (auto source = after - first_from_.begin() - 1; begin < end; ++source) {
    const auto s = static_cast<size_t>(source);
    const int64_t stop = std::min(end, first_from_[s + 1]);
    if (begin < stop) {
      body(static_cast<int>(source), begin - first_from_[s], stop - first_from_[s]);
    }
    begin = std::max(begin, stop);
  }
}

DispatchedRows GroupExchange::Group(kernels::ExecContext& ctx, Arena& arena) {
  const int64_t num_local = NumLocalSlots(shape_, rank());
  const int64_t num_rows = first_from_.back();
  const int64_t k = shape_.top_k;
  const auto ints = [&](int64_t count) {
    return std::span(arena.Alloc<int32_t>(count), static_cast<size_t>(count));
  };
  const std::span<int32_t> offsets = ints(num_local + 1);
  const std::span<int32_t> first = ints(size() * num_local);
  const std::span<const int32_t> counts(At<int32_t>(rank(), layout_.counts), counts_.size());
  AssignPlaces(shape_, num_local, counts, offsets, first);
  num_expert_rows_ += offsets.back();
  const auto* const own = counts_.data() + rank() * shape_.slots_per_rank();
  num_home_rows_ += std::accumulate(own, own + num_local, int64_t{0});
  const std::span<int32_t> pairs = ints(offsets.back());
  places_ = ints(num_rows * k);

  const auto* const slots = At<int32_t>(rank(), layout_.slots);
  const auto* const ordinals = At<int32_t>(rank(), layout_.ordinals);
  const auto group = [&](int64_t begin, int64_t end) {
    ForSources(begin, end, [&](int source, int64_t from, int64_t to) {
      const int64_t first_pair = RegionRow(shape_, source, 0) * k;
      int32_t* const places = places_.data() + first_from_[static_cast<size_t>(source)] * k;
      for (int64_t i = from * k; i < to * k; ++i) {
        const int64_t pair = first_pair + i;
        places[i] = -1;
        if (slots[pair] < 0) continue;
        places[i] = first[static_cast<size_t>(source * num_local + slots[pair])] + ordinals[pair];
        pairs[static_cast<size_t>(places[i])] = static_cast<int32_t>(pair);
      }
    });
  };
  constexpr int64_t kGrain = 512;
  kernels::ForTasks(ctx, (num_rows + kGrain - 1) / kGrain, static_cast<double>(num_rows * k) * 2,
                    [&](int64_t task, int /*thread*/) {
                      group(task * kGrain, std::min(num_rows, (task + 1) * kGrain));
                    });
  const int64_t all_rows = RegionRow(shape_, size(), 0);
  return {.rows = Mat(At<std::byte>(rank(), layout_.rows), shape_.act, all_rows, shape_.hidden),
          .offsets = offsets,
          .pairs = pairs,
          .rows_per_pair = k,
          .weights = {At<float>(rank(), layout_.weights), static_cast<size_t>(all_rows * k)},
          .max_places = offsets.back()};
}

void GroupExchange::Combine(kernels::ExecContext& ctx, const CombineArgs& args) {
  if (!status()) return;
  SendResults(ctx, args);
  if (!WaitForAll(ExchangeHalf::kCombine)) return;
  const int64_t num_results =
      shape_.deterministic ? shape_.max_tokens * shape_.top_k : RegionRow(shape_, size(), 0);
  kernels::WeightedReduce(
      ctx, {.rows = Mat(ResultRow(rank(), 0), shape_.act, num_results, shape_.hidden),
            .places = home_rows_,
            .weights = args.weighted ? home_weights_ : std::span<const float>(),
            .k = shape_.top_k,
            .shared = args.shared,
            .out = args.out});
}

void GroupExchange::SendResults(kernels::ExecContext& ctx, const CombineArgs& args) {
  const int64_t num_rows = first_from_.back();
  const auto mine = static_cast<size_t>(rank());
  const auto own = std::span(places_).subspan(
      static_cast<size_t>(first_from_[mine] * shape_.top_k),
      static_cast<size_t>((first_from_[mine + 1] - first_from_[mine]) * shape_.top_k));
  const auto is_place = [](int32_t place) { return place >= 0; };
  const int64_t num_sent =
      shape_.deterministic
          ? std::ranges::count_if(places_, is_place) - std::ranges::count_if(own, is_place)
          : num_rows - (first_from_[mine + 1] - first_from_[mine]);
  bytes_.combine += num_sent * shape_.row_bytes();

  const double row_ns = kNsPerRow + 2 * kNsPerByte * static_cast<double>(shape_.row_bytes());
  if (mode_ == ExchangeMode::kLatency) {
    kernels::ForTasks(ctx, size(), row_ns * static_cast<double>(num_rows),
                      [&](int64_t task, int /*thread*/) {
                        const int home = After(task + 1);
                        const auto h = static_cast<size_t>(home);
                        WriteResults(ctx, args, home, 0, first_from_[h + 1] - first_from_[h]);
                        Flag(ExchangeHalf::kCombine, home);
                      });
    return;
  }
  const auto grain = static_cast<int64_t>(std::max(1.0, kernels::kTaskNs / row_ns));
  kernels::ForTasks(ctx, (num_rows + grain - 1) / grain, row_ns * static_cast<double>(num_rows),
                    [&](int64_t task, int /*thread*/) {
                      ForSources(task * grain, std::min(num_rows, (task + 1) * grain),
                                 [&](int home, int64_t begin, int64_t end) {
                                   WriteResults(ctx, args, home, begin, end);
                                 });
                    });
  for (int i = 1; i <= size(); ++i) Flag(ExchangeHalf::kCombine, After(i));
}

// Of the rows [begin, end) that came from `home`. Runs on threads of the pool, so it uses none.
void GroupExchange::WriteResults(const kernels::ExecContext& ctx, const CombineArgs& args, int home,
                                 int64_t begin, int64_t end) const {
  if (begin == end) return;
  const int64_t k = shape_.top_k;
  const auto row_bytes = static_cast<size_t>(shape_.row_bytes());
  const int64_t row = RegionRow(shape_, home, begin);
  const auto num_pairs = static_cast<size_t>((end - begin) * k);
  const std::span<const int32_t> places = std::span(places_).subspan(
      static_cast<size_t>((first_from_[static_cast<size_t>(home)] + begin) * k), num_pairs);
  if (shape_.deterministic) {
    const auto* const tokens = At<int32_t>(rank(), layout_.tokens) + row;
    for (size_t i = 0; i < num_pairs; ++i) {
      if (places[i] < 0) continue;
      const int64_t choice = static_cast<int64_t>(i) % k;
      const int64_t token = tokens[static_cast<int64_t>(i) / k];
      std::memcpy(ResultRow(home, token * k + choice), args.expert_rows.RowBytes(places[i]),
                  row_bytes);
    }
    return;
  }
  kernels::ExecContext serial = ctx;
  serial.pool = nullptr;
  const float* const weights = At<float>(rank(), layout_.weights) + row * k;
  kernels::WeightedReduce(
      serial, {.rows = args.expert_rows,
               .places = places,
               .weights = args.weighted ? std::span(weights, num_pairs) : std::span<const float>(),
               .k = k,
               .shared = {},
               .out = Mat(ResultRow(home, RegionRow(shape_, rank(), begin)), shape_.act,
                          end - begin, shape_.hidden)});
}

}  // namespace moebius::moe
