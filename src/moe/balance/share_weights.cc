#include "moe/balance/share_weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moebius::moe {
namespace {

constexpr int kMaxSweeps = 64;
constexpr double kSettled = 1e-6;  // of the mean load of a rank: no share moves by more

// Pours `load` over ranks that hold `base`, ascending: the lowest fill up to one level. What the
// rank at index i gets is max(0, level - base[i]).
double WaterLevel(std::span<const double> base, double load) {
  double sum = load;
  double level = 0;
  for (size_t n = 0; n < base.size() && (n == 0 || base[n] < level); ++n) {
    sum += base[n];
    level = sum / static_cast<double>(n + 1);
  }
  return level;
}

class WaterFilling {
 public:
  WaterFilling(const SlotShape& shape, std::span<const double> load,
               std::span<const int32_t> experts)
      : places_(static_cast<size_t>(shape.places_per_rank())),
        load_(load),
        copies_(load.size()),
        weights_(experts.size()),
        rank_load_(RankLoads(shape, load, experts)) {
    for (size_t p = 0; p < experts.size(); ++p) {
      if (experts[p] >= 0) copies_[static_cast<size_t>(experts[p])].push_back(p);
    }
    for (const std::vector<size_t>& places : copies_) {
      for (const size_t p : places) weights_[p] = 1.0 / static_cast<double>(places.size());
    }
  }

  // Levels one expert after the other, the others staying: each lowers the sum of squares, whose
  // least also has the lowest heaviest rank.
  std::vector<double> Run() {
    const double mean =
        std::accumulate(load_.begin(), load_.end(), 0.0) / static_cast<double>(rank_load_.size());
    for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
      double moved = 0;
      for (size_t e = 0; e < copies_.size(); ++e) {
        if (copies_[e].size() > 1 && load_[e] > 0) moved = std::max(moved, Level(e));
      }
      if (moved <= kSettled * mean) break;
    }
    return std::move(weights_);
  }

 private:
  // Returns the most load that any of its copies got or lost.
  double Level(size_t e) {
    const std::vector<size_t>& places = copies_[e];
    for (const size_t p : places) rank_load_[p / places_] -= weights_[p] * load_[e];
    base_.clear();
    for (size_t i = 0; i < places.size(); ++i) {
      if (i == 0 || places[i] / places_ != places[i - 1] / places_) {
        base_.push_back(rank_load_[places[i] / places_]);
      }
    }
    std::sort(base_.begin(), base_.end());
    const double level = WaterLevel(base_, load_[e]);

    double moved = 0;
    double sum = 0;
    before_.clear();
    for (const size_t p : places) {
      const size_t rank = p / places_;
      const auto on_rank = std::count_if(places.begin(), places.end(),
                                         [&](size_t q) { return q / places_ == rank; });
      before_.push_back(weights_[p]);
      weights_[p] =
          std::max(0.0, level - rank_load_[rank]) / (load_[e] * static_cast<double>(on_rank));
      sum += weights_[p];
    }
    for (size_t i = 0; i < places.size(); ++i) {
      double& weight = weights_[places[i]];
      weight /= sum;  // what rounding left
      moved = std::max(moved, std::abs(weight - before_[i]) * load_[e]);
    }
    for (const size_t p : places) rank_load_[p / places_] += weights_[p] * load_[e];
    return moved;
  }

  const size_t places_;  // a rank
  const std::span<const double> load_;
  std::vector<std::vector<size_t>> copies_;  // places by expert, ascending
  std::vector<double> weights_;
  std::vector<double> rank_load_;
  std::vector<double> base_;    // scratch of Level
  std::vector<double> before_;  // scratch of Level
};

}  // namespace

std::vector<double> ShareWeights(const SlotShape& shape, std::span<const double> load,
                                 std::span<const int32_t> experts) {
  return WaterFilling(shape, load, experts).Run();
}

std::vector<double> WeightedRankLoads(const SlotShape& shape, std::span<const double> load,
                                      std::span<const int32_t> experts,
                                      std::span<const double> weights) {
  std::vector<double> loads(static_cast<size_t>(shape.num_ranks));
  for (size_t p = 0; p < experts.size(); ++p) {
    if (experts[p] < 0) continue;
    loads[p / static_cast<size_t>(shape.places_per_rank())] +=
        load[static_cast<size_t>(experts[p])] * weights[p];
  }
  return loads;
}

}  // namespace moebius::moe
