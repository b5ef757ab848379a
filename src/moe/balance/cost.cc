#include "moe/balance/cost.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moebius::moe {

ExpertCost CostInRows(double expert_bytes, double flops_of_row, double flops_per_byte) {
  ExpertCost cost{.seconds_per_row = 1};
  if (flops_of_row > 0) {
    cost.seconds_per_active_expert = expert_bytes * flops_per_byte / flops_of_row;
  }
  return cost;
}

double ProbabilityActive(double rows) {
  if (rows <= 0) return 0;
  if (rows >= 40) return 1;  // what is left is below half a unit in the last place
  int doublings = 0;
  double x = rows;
  for (; x > 0.125; x /= 2) ++doublings;
  double series = 1;  // 1 - exp(-x) = x (1 - x/2 (1 - x/3 (1 - ...)))
  for (int n = 9; n >= 2; --n) series = 1 - x / n * series;
  double p = x * series;
  for (; doublings > 0; --doublings) p *= 2 - p;  // 1 - exp(-2x)
  return p;
}

double SlotSeconds(const ExpertCost& cost, double rows) {
  const double active = ProbabilityActive(rows);
  if (active <= 0) return 0;
  double padded = rows / active;  // expected of a slot that gets any
  if (cost.tile_rows > 1) padded = std::ceil(padded / cost.tile_rows) * cost.tile_rows;
  return active * (padded * cost.seconds_per_row + cost.seconds_per_active_expert);
}

std::vector<double> RankSeconds(const ExpertCost& cost, const SlotShape& shape,
                                std::span<const double> load, std::span<const int32_t> experts,
                                double tokens) {
  std::vector<double> seconds(static_cast<size_t>(shape.num_ranks));
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  if (total <= 0) return seconds;
  std::vector<double> copies(load.size());
  for (const int32_t e : experts) {
    if (e >= 0) ++copies[static_cast<size_t>(e)];
  }
  for (size_t p = 0; p < experts.size(); ++p) {
    if (experts[p] < 0) continue;
    const auto e = static_cast<size_t>(experts[p]);
    seconds[p / static_cast<size_t>(shape.places_per_rank())] +=
        SlotSeconds(cost, tokens * (load[e] / total) / copies[e]);
  }
  return seconds;
}

double LayerSeconds(const ExpertCost& cost, const SlotShape& shape, std::span<const double> load,
                    std::span<const int32_t> experts, double tokens) {
  const std::vector<double> seconds = RankSeconds(cost, shape, load, experts, tokens);
  return *std::max_element(seconds.begin(), seconds.end());
}

}  // namespace moebius::moe
