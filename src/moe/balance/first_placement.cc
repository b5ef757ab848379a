#include <algorithm>
#include <numeric>

#include "moe/balance/plans.h"
#include "moe/balance/replicas.h"

namespace moebius::moe {
namespace {

// The ranks of one node (or all) while they are filled.
class RankFiller {
 public:
  RankFiller(const SlotShape& shape, int first_rank, int num_ranks, SlotList& list)
      : shape_(shape),
        first_rank_(first_rank),
        load_(static_cast<size_t>(num_ranks)),
        used_(static_cast<size_t>(num_ranks)),
        latest_(static_cast<size_t>(num_ranks), -1),
        list_(list) {
    for (int r = 0; r < num_ranks; ++r) room_.push_back(shape.SlotsOf(first_rank + r));
  }

  // To the lightest rank with a free slot that has no copy of the expert; if all have one, to the
  // lightest all the same. An expert's copies are added one after the other.
  void Add(int32_t expert, double share) {
    size_t lightest = load_.size();
    bool lightest_has = true;
    for (size_t r = 0; r < load_.size(); ++r) {
      if (used_[r] == room_[r]) continue;
      const bool has = latest_[r] == expert;
      if (lightest == load_.size() || (lightest_has && !has) ||
          (has == lightest_has && load_[r] < load_[lightest])) {
        lightest = r;
        lightest_has = has;
      }
    }
    Rank(lightest)[static_cast<size_t>(used_[lightest]++)] = expert;
    latest_[lightest] = expert;
    load_[lightest] += share;
    has_pairs_ = has_pairs_ || lightest_has;
  }

  // Swaps second copies on a rank with slots of others, while that leaves fewer.
  void Separate() {
    if (!has_pairs_) return;
    for (size_t r = 0; r < load_.size(); ++r) {
      const std::span<int32_t> here = Slots(r);
      for (size_t i = 1; i < here.size(); ++i) {
        if (Holds(here.first(i), here[i])) SwapAway(r, here[i]);
      }
    }
  }

 private:
  std::span<int32_t> Rank(size_t r) {
    const auto places = static_cast<size_t>(shape_.places_per_rank());
    return std::span(list_).subspan((static_cast<size_t>(first_rank_) + r) * places, places);
  }
  std::span<int32_t> Slots(size_t r) { return Rank(r).first(static_cast<size_t>(used_[r])); }
  static bool Holds(std::span<const int32_t> slots, int32_t expert) {
    return std::find(slots.begin(), slots.end(), expert) != slots.end();
  }
  void SwapAway(size_t rank, int32_t& slot) {
    for (size_t q = 0; q < load_.size(); ++q) {
      if (q == rank || Holds(Slots(q), slot)) continue;
      for (int32_t& other : Slots(q)) {
        if (Holds(Slots(rank), other)) continue;
        std::swap(slot, other);
        return;
      }
    }
  }

  const SlotShape& shape_;
  int first_rank_;
  std::vector<double> load_;     // by rank, from first_rank_
  std::vector<int> room_;        // slots
  std::vector<int> used_;        // of them
  std::vector<int32_t> latest_;  // the expert of its latest slot
  SlotList& list_;
  bool has_pairs_ = false;
};

void FillNode(const SlotShape& shape, std::span<const double> load,
              std::span<const int32_t> experts, int first_rank, int num_ranks, SlotList& list) {
  std::vector<double> share;
  for (const int32_t e : experts) share.push_back(load[static_cast<size_t>(e)]);
  const int num_slots = shape.FirstSlot(first_rank + num_ranks) - shape.FirstSlot(first_rank);
  std::vector<int> copies(experts.size(), 1);
  for (const int32_t i : ExtraCopies(share, num_slots - static_cast<int>(experts.size()),
                                     ShareTie::kFewestCopies, num_ranks)) {
    ++copies[static_cast<size_t>(i)];
  }
  for (size_t i = 0; i < share.size(); ++i) share[i] /= copies[i];

  std::vector<size_t> order(experts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return share[a] != share[b] ? share[a] > share[b] : a < b; });
  RankFiller ranks(shape, first_rank, num_ranks, list);
  for (const size_t i : order) {
    for (int c = 0; c < copies[i]; ++c) ranks.Add(experts[i], share[i]);
  }
  ranks.Separate();
}

}  // namespace

SlotList FirstPlacement(const SlotShape& shape, std::span<const double> load) {
  SlotList list(static_cast<size_t>(shape.num_places()), -1);
  if (shape.HasNodeGroups()) {
    const int per_node = shape.num_ranks / shape.num_nodes;
    int first_rank = 0;
    for (const std::vector<int32_t>& experts :
         NodeExperts(load, shape.num_groups, shape.num_nodes)) {
      FillNode(shape, load, experts, first_rank, per_node, list);
      first_rank += per_node;
    }
    return list;
  }
  std::vector<int32_t> experts(load.size());
  std::iota(experts.begin(), experts.end(), 0);
  FillNode(shape, load, experts, 0, shape.num_ranks, list);
  return list;
}

}  // namespace moebius::moe
