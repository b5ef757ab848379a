// The slots of a layer while kImprove changes them, and what they weigh. Weights are whole numbers:
// the sums of ranks are exact in whatever order moves add to them, so that no plan hangs on
// rounding. Made for one plan, on its thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/balance/policy.h"

namespace moebius::moe {

class Board {
 public:
  Board(const SlotShape& shape, std::span<const double> load, SlotList experts,
        const ImproveOptions& options);

  const SlotList& experts() const { return experts_; }
  int32_t expert(int place) const { return experts_[static_cast<size_t>(place)]; }
  int rank(int place) const { return rank_[static_cast<size_t>(place)]; }
  // The places of a rank that hold an expert: [FirstPlace, EndPlace).
  int FirstPlace(int rank) const { return rank * places_; }
  int EndPlace(int rank) const { return end_place_[static_cast<size_t>(rank)]; }

  int64_t load(int rank) const { return rank_load_[static_cast<size_t>(rank)]; }
  int64_t total() const { return total_; }
  int HottestRank() const;  // ties: the lowest
  int64_t weight(int place) const { return weight_[static_cast<size_t>(place)]; }
  // Of each slot of an expert, with so many copies.
  int64_t Weigh(int32_t expert, int copies) const;
  // With one copy more or less than now. Less than one is not asked for.
  int64_t WeightWithMore(int32_t expert) const { return more_[static_cast<size_t>(expert)]; }
  int64_t WeightWithLess(int32_t expert) const { return less_[static_cast<size_t>(expert)]; }

  int copies(int32_t expert) const { return copies_[static_cast<size_t>(expert)]; }
  bool Holds(int rank, int32_t expert) const { return held_[HeldIndex(rank, expert)] > 0; }
  // The places of an expert: begin with FirstOf, end at a negative one.
  int FirstOf(int32_t expert) const { return first_[static_cast<size_t>(expert)]; }
  int NextOf(int place) const { return next_[static_cast<size_t>(place)]; }
  // The first place from this one on whose expert has others, too; num_places: there is none.
  int NextShared(int place) const;

  void Swap(int place, int other);
  void Replace(int place, int32_t expert);

 private:
  size_t HeldIndex(int rank, int32_t expert) const {
    return static_cast<size_t>(rank) * share_.size() + static_cast<size_t>(expert);
  }
  // An expert without places gets one; Weights of its other places are as before until Reweigh.
  void Put(int place, int32_t expert);
  void Take(int place);
  void Reweigh(int32_t expert);
  double Value(int32_t expert, int copies) const;

  const SlotShape shape_;
  const ImproveOptions options_;
  const int places_;  // a rank
  SlotList experts_;
  std::vector<int32_t> rank_;       // by place
  std::vector<int32_t> end_place_;  // by rank
  std::vector<double> share_;       // of the load, by expert
  double scale_ = 0;                // weight of a value of 1
  std::vector<int> copies_;         // by expert, as are more_, less_ and first_
  std::vector<int64_t> more_;
  std::vector<int64_t> less_;
  std::vector<int32_t> first_;
  std::vector<int32_t> next_;     // by place
  std::vector<int64_t> weight_;   // by place
  std::vector<uint64_t> shared_;  // a bit a place
  std::vector<int64_t> rank_load_;
  std::vector<uint16_t> held_;  // copies by rank and expert
  int64_t total_ = 0;
};

}  // namespace moebius::moe
