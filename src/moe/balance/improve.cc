#include <algorithm>
#include <numeric>

#include "moe/balance/board.h"
#include "moe/balance/plans.h"
#include "moe/balance/replicas.h"

namespace moebius::moe {
namespace {

// A change of one slot, which becomes a copy of `expert`, or of two, which swap.
struct SlotMove {
  int place = -1;
  int other = -1;  // negative: no swap
  int32_t expert = -1;
  int64_t after = 0;   // the heaviest of the ranks that it makes heavier, and of the hottest
  int64_t relief = 0;  // how much less load lies above the target, summed over ranks

  int slots() const { return other >= 0 ? 2 : 1; }
};

// Greedy descent: while the hottest rank is too heavy, the move that relieves it and takes the most
// load from above the target for each slot written. Every move leaves the ranks that it touches
// below what the hottest was, so that it ends.
class Improver {
 public:
  Improver(const SlotShape& shape, std::span<const double> load, SlotList list,
           std::span<const int32_t> present, const ImproveOptions& options)
      : shape_(shape),
        present_(present),
        options_(options),
        board_(shape, load, std::move(list), options),
        ranks_(static_cast<size_t>(shape.num_ranks)) {
    std::iota(ranks_.begin(), ranks_.end(), 0);
    FindHomes();
    FindFloor(load);
  }

  SlotList Run() {
    const double mean_before = Mean();
    const int64_t before = board_.load(board_.HottestRank());
    while (FindBest()) {
      num_changed_ += Changes(best_);
      if (best_.other >= 0) {
        board_.Swap(best_.place, best_.other);
      } else {
        board_.Replace(best_.place, best_.expert);
      }
    }
    const int64_t gain = before - board_.load(board_.HottestRank());
    if (!present_.empty() && static_cast<double>(gain) < options_.min_gain * mean_before) {
      return {present_.begin(), present_.end()};
    }
    return board_.experts();
  }

 private:
  double Mean() const { return static_cast<double>(board_.total()) / shape_.num_ranks; }

  // An expert's home is the node that holds most of its group: moves bring no copies elsewhere.
  void FindHomes() {
    if (!shape_.HasNodeGroups()) return;
    const int group_size = shape_.num_experts / shape_.num_groups;
    const int ranks_per_node = shape_.num_ranks / shape_.num_nodes;
    const auto num_nodes = static_cast<size_t>(shape_.num_nodes);
    std::vector<int> held(static_cast<size_t>(shape_.num_groups) * num_nodes);
    for (int p = 0; p < shape_.num_places(); ++p) {
      if (board_.expert(p) < 0) continue;
      ++held[static_cast<size_t>(board_.expert(p) / group_size) * num_nodes +
             static_cast<size_t>(board_.rank(p) / ranks_per_node)];
    }
    for (int e = 0; e < shape_.num_experts; ++e) {
      const auto first = held.begin() + e / group_size * shape_.num_nodes;
      home_.push_back(static_cast<int>(std::max_element(first, first + shape_.num_nodes) - first));
    }
  }

  // What the heaviest rank cannot get below: the heaviest slot with the best copies.
  void FindFloor(std::span<const double> load) {
    std::vector<int> copies(load.size(), 1);
    for (const int32_t e :
         ExtraCopies(load, shape_.num_slots - shape_.num_experts, ShareTie::kFewestCopies)) {
      ++copies[static_cast<size_t>(e)];
    }
    for (int32_t e = 0; e < shape_.num_experts; ++e) {
      floor_ = std::max(floor_, board_.Weigh(e, copies[static_cast<size_t>(e)]));
    }
  }

  // No second copy on a rank, none away from home.
  bool MayHold(int rank, int32_t expert) const {
    if (board_.Holds(rank, expert)) return false;
    return home_.empty() ||
           home_[static_cast<size_t>(expert)] == rank / (shape_.num_ranks / shape_.num_nodes);
  }

  // How many more slots differ from the present ones after a move.
  int Changes(const SlotMove& move) const {
    if (present_.empty()) return 0;
    const auto change = [&](int place, int32_t expert) {
      const int32_t present = present_[static_cast<size_t>(place)];
      return (expert != present ? 1 : 0) - (board_.expert(place) != present ? 1 : 0);
    };
    if (move.other < 0) return change(move.place, move.expert);
    return change(move.place, board_.expert(move.other)) +
           change(move.other, board_.expert(move.place));
  }

  int64_t Excess(int64_t load) const { return std::max<int64_t>(0, load - target_); }
  // The most relief for each slot written; then the lower ranks.
  bool IsBetter(const SlotMove& move) const {
    if (move.after >= hot_load_ || move.relief <= worth_ * move.slots()) return false;
    if (best_.place < 0) return true;
    const int64_t relief = move.relief * best_.slots();
    const int64_t best_relief = best_.relief * move.slots();
    return relief != best_relief ? relief > best_relief : move.after < best_.after;
  }
  void Offer(const SlotMove& move) {
    if (num_changed_ + Changes(move) <= options_.max_moves) best_ = move;
  }

  // The best move that relieves the hottest rank; false: it is light enough, or none does.
  bool FindBest() {
    best_ = {};
    hot_ = board_.HottestRank();
    hot_load_ = board_.load(hot_);
    target_ = static_cast<int64_t>(std::max(Mean(), static_cast<double>(floor_)) *
                                   (1 + options_.good_enough));
    worth_ = present_.empty() ? 0 : static_cast<int64_t>(Mean() * options_.slot_gain);
    if (hot_load_ <= target_) return false;
    FindCopies();
    FindSwaps();
    return best_.place >= 0;
  }

  // A slot of the hottest rank with a lighter one elsewhere.
  void FindSwaps() {
    std::sort(ranks_.begin(), ranks_.end(), [&](int a, int b) {
      return board_.load(a) != board_.load(b) ? board_.load(a) < board_.load(b) : a < b;
    });
    const int hot_end = board_.EndPlace(hot_);
    for (const int rank : ranks_) {
      const int64_t load = board_.load(rank);
      const int64_t before = Excess(hot_load_) + Excess(load);
      // Two ranks can at best meet in the middle; the next ones are heavier still.
      const int64_t middle = (hot_load_ + load + 1) / 2;
      if (!IsBetter({0, 0, -1, middle, before - 2 * Excess(middle)})) break;
      const int end = board_.EndPlace(rank);
      for (int i = board_.FirstPlace(hot_); i < hot_end; ++i) {
        for (int j = board_.FirstPlace(rank); j < end; ++j) {
          const int64_t moved = board_.weight(i) - board_.weight(j);
          if (moved <= 0) continue;
          const SlotMove swap{i, j, -1, std::max(hot_load_ - moved, load + moved),
                              before - Excess(hot_load_ - moved) - Excess(load + moved)};
          if (!IsBetter(swap)) continue;
          if (MayHold(rank, board_.expert(i)) && MayHold(hot_, board_.expert(j))) Offer(swap);
        }
      }
    }
  }

  // What becomes of the ranks when a place, not of the hottest, gives up a copy of which there are
  // others.
  struct Removal {
    int64_t hot = 0;     // the hottest rank
    int64_t here = 0;    // the place's rank
    int64_t others = 0;  // the heaviest of the others
    int64_t relief = 0;  // of those others: negative
  };
  Removal Remove(int place) const {
    const int32_t expert = board_.expert(place);
    const int rank = board_.rank(place);
    const int64_t rise = board_.WeightWithLess(expert) - board_.weight(place);
    Removal removal{hot_load_, board_.load(rank) - board_.weight(place), 0, 0};
    for (int p = board_.FirstOf(expert); p >= 0; p = board_.NextOf(p)) {
      if (p == place) continue;
      const int other = board_.rank(p);
      if (other == rank) {
        removal.here += rise;
      } else if (other == hot_) {
        removal.hot += rise;
      } else {
        removal.others = std::max(removal.others, board_.load(other) + rise);
        removal.relief += Excess(board_.load(other)) - Excess(board_.load(other) + rise);
      }
    }
    return removal;
  }
  // What one more copy of an expert takes from those ranks, but for the hottest, that have one.
  int64_t ReliefOfMore(int32_t expert) const {
    int64_t relief = 0;
    for (int p = board_.FirstOf(expert); p >= 0; p = board_.NextOf(p)) {
      const int64_t load = board_.load(board_.rank(p));
      if (board_.rank(p) == hot_ || load <= target_) continue;
      relief += Excess(load) - Excess(load - board_.weight(p) + board_.WeightWithMore(expert));
    }
    return relief;
  }

  // A slot of the hottest rank, whose expert may get one more copy.
  struct Candidate {
    int32_t expert = -1;
    int64_t put = 0;     // what each copy weighs then
    int64_t taken = 0;   // from the hottest rank
    int64_t relief = 0;  // of the other ranks that have a copy
  };

  // A redundant copy elsewhere becomes a copy of an expert of the hottest rank.
  void FindCopies() {
    candidates_.clear();
    int64_t most_taken = 0;
    for (int i = board_.FirstPlace(hot_); i < board_.EndPlace(hot_); ++i) {
      const int32_t expert = board_.expert(i);
      const int64_t put = board_.WeightWithMore(expert);
      candidates_.push_back({expert, put, board_.weight(i) - put, ReliefOfMore(expert)});
      most_taken = std::max(most_taken, candidates_.back().taken);
    }
    for (int place = board_.NextShared(0); place < shape_.num_places();
         place = board_.NextShared(place + 1)) {
      if (board_.rank(place) == hot_) continue;
      const Removal removal = Remove(place);
      if (removal.others >= hot_load_) continue;
      const int64_t was =
          Excess(hot_load_) + Excess(board_.load(board_.rank(place))) + removal.relief;
      const auto relief_of = [&](const Candidate& c) {
        return was - Excess(removal.hot - c.taken) - Excess(removal.here + c.put) + c.relief;
      };
      // Few places have any move that is better: what the best would relieve tells, in less time.
      int64_t most_relief = 0;
      for (const Candidate& c : candidates_) most_relief = std::max(most_relief, relief_of(c));
      const int64_t least_after = std::max(removal.hot - most_taken, removal.others);
      if (!IsBetter({place, -1, -1, least_after, most_relief})) continue;
      for (const Candidate& c : candidates_) {
        const int64_t after =
            std::max({removal.hot - c.taken, removal.here + c.put, removal.others});
        const SlotMove copy{place, -1, c.expert, after, relief_of(c)};
        if (c.expert == board_.expert(place) || !IsBetter(copy)) continue;
        if (MayHold(board_.rank(place), c.expert)) Offer(copy);
      }
    }
  }

  const SlotShape& shape_;
  const std::span<const int32_t> present_;
  const ImproveOptions& options_;
  Board board_;
  std::vector<int> ranks_;  // by load
  std::vector<int> home_;   // node by expert; empty: anywhere
  int64_t floor_ = 0;
  int num_changed_ = 0;
  // Of the search for a move.
  int hot_ = 0;
  int64_t hot_load_ = 0;
  int64_t target_ = 0;
  int64_t worth_ = 0;
  std::vector<Candidate> candidates_;
  SlotMove best_;
};

}  // namespace

SlotList PlanImprove(const SlotShape& shape, std::span<const double> load,
                     std::span<const int32_t> present, const ImproveOptions& options) {
  SlotList list =
      present.empty() ? FirstPlacement(shape, load) : SlotList(present.begin(), present.end());
  return Improver(shape, load, std::move(list), present, options).Run();
}

}  // namespace moebius::moe
