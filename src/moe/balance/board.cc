#include "moe/balance/board.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "moe/balance/cost.h"

namespace moebius::moe {
namespace {

// The sum of all weights to begin with: fine enough for any load, and far from overflow.
constexpr double kWeightOfAll = int64_t{1} << 44;

}  // namespace

Board::Board(const SlotShape& shape, std::span<const double> load, SlotList experts,
             const ImproveOptions& options)
    : shape_(shape),
      options_(options),
      places_(shape.places_per_rank()),
      experts_(std::move(experts)),
      share_(load.begin(), load.end()),
      copies_(load.size()),
      more_(load.size()),
      less_(load.size()),
      first_(load.size(), -1),
      next_(experts_.size(), -1),
      weight_(experts_.size()),
      shared_(experts_.size() / 64 + 1),
      rank_load_(static_cast<size_t>(shape.num_ranks)),
      held_(static_cast<size_t>(shape.num_ranks) * load.size()) {
  for (int r = 0; r < shape_.num_ranks; ++r) {
    rank_.insert(rank_.end(), static_cast<size_t>(places_), r);
    end_place_.push_back(FirstPlace(r) + shape_.SlotsOf(r));
  }
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  for (double& share : share_) share = total > 0 ? share / total : 0;
  for (size_t p = 0; p < experts_.size(); ++p) {
    if (experts_[p] >= 0) Put(static_cast<int>(p), experts_[p]);
  }
  double all = 0;  // whatever the copies are: the same load has the same weights in every plan
  for (int32_t e = 0; e < shape_.num_experts; ++e) all += Value(e, 1);
  scale_ = all > 0 ? kWeightOfAll / all : 0;
  for (int32_t e = 0; e < shape_.num_experts; ++e) Reweigh(e);
}

int Board::HottestRank() const {
  return static_cast<int>(std::max_element(rank_load_.begin(), rank_load_.end()) -
                          rank_load_.begin());
}

int Board::NextShared(int place) const {
  auto word = static_cast<size_t>(place) / 64;
  uint64_t bits = shared_[word] & (~uint64_t{0} << (place % 64));
  while (bits == 0) {
    if (++word == shared_.size()) return static_cast<int>(experts_.size());
    bits = shared_[word];
  }
  return static_cast<int>(word * 64) + std::countr_zero(bits);
}

double Board::Value(int32_t expert, int copies) const {
  const double share = share_[static_cast<size_t>(expert)];
  if (options_.cost == nullptr) return share / copies;
  return SlotSeconds(*options_.cost, options_.tokens * share / copies);
}

int64_t Board::Weigh(int32_t expert, int copies) const {
  return static_cast<int64_t>(Value(expert, copies) * scale_);
}

void Board::Put(int place, int32_t expert) {
  const auto p = static_cast<size_t>(place);
  const auto e = static_cast<size_t>(expert);
  experts_[p] = expert;
  next_[p] = first_[e];
  first_[e] = place;
  ++copies_[e];
  ++held_[HeldIndex(rank(place), expert)];
}

void Board::Take(int place) {
  const auto p = static_cast<size_t>(place);
  int32_t* link = &first_[static_cast<size_t>(experts_[p])];
  while (*link != place) link = &next_[static_cast<size_t>(*link)];
  *link = next_[p];
  --copies_[static_cast<size_t>(experts_[p])];
  --held_[HeldIndex(rank(place), experts_[p])];
  rank_load_[static_cast<size_t>(rank(place))] -= weight_[p];
  total_ -= weight_[p];
  weight_[p] = 0;
}

void Board::Reweigh(int32_t expert) {
  const auto e = static_cast<size_t>(expert);
  const int64_t weight = Weigh(expert, copies_[e]);
  for (int p = FirstOf(expert); p >= 0; p = NextOf(p)) {
    const int64_t change = weight - weight_[static_cast<size_t>(p)];
    weight_[static_cast<size_t>(p)] = weight;
    rank_load_[static_cast<size_t>(rank(p))] += change;
    total_ += change;
    const uint64_t bit = uint64_t{1} << (p % 64);
    uint64_t& word = shared_[static_cast<size_t>(p) / 64];
    word = copies_[e] > 1 ? word | bit : word & ~bit;
  }
  more_[e] = Weigh(expert, copies_[e] + 1);
  less_[e] = copies_[e] > 1 ? Weigh(expert, copies_[e] - 1) : 0;
}

void Board::Swap(int place, int other) {
  const int32_t a = expert(place);
  const int32_t b = expert(other);
  Take(place);
  Take(other);
  Put(place, b);
  Put(other, a);
  Reweigh(a);
  Reweigh(b);
}

void Board::Replace(int place, int32_t expert) {
  const int32_t before = experts_[static_cast<size_t>(place)];
  Take(place);
  Put(place, expert);
  Reweigh(before);
  Reweigh(expert);
}

}  // namespace moebius::moe
