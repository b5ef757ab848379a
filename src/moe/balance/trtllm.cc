#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "moe/balance/plans.h"
#include "moe/balance/replicas.h"

namespace moebius::moe {
namespace {

std::vector<int> TrtllmCopies(const SlotShape& shape, std::span<const double> load) {
  std::vector<int> copies(load.size(), 1);
  if (std::all_of(load.begin(), load.end(), [](double l) { return l == 0; })) {
    for (int s = shape.num_experts; s < shape.num_slots; ++s) {
      ++copies[static_cast<size_t>(s % shape.num_experts)];
    }
    return copies;
  }
  for (const int32_t e :
       ExtraCopies(load, shape.num_slots - shape.num_experts, ShareTie::kHighestExpert)) {
    ++copies[static_cast<size_t>(e)];
  }
  return copies;
}

}  // namespace

SlotList PlanTrtllm(const SlotShape& shape, std::span<const double> load) {
  const std::vector<int> copies = TrtllmCopies(shape, load);
  std::vector<std::pair<double, int32_t>> shares;  // of the slots
  for (size_t e = 0; e < load.size(); ++e) {
    shares.insert(shares.end(), static_cast<size_t>(copies[e]),
                  {load[e] / copies[e], static_cast<int32_t>(e)});
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });

  using RankEntry = std::pair<double, int>;  // load, rank
  std::priority_queue<RankEntry, std::vector<RankEntry>, std::greater<>> ranks;
  for (int r = 0; r < shape.num_ranks; ++r) ranks.emplace(0.0, r);
  std::vector<int> used(static_cast<size_t>(shape.num_ranks));
  SlotList list(static_cast<size_t>(shape.num_slots));
  for (const auto& [share, expert] : shares) {
    const auto [rank_load, rank] = ranks.top();
    ranks.pop();
    int& num_used = used[static_cast<size_t>(rank)];
    const int slot = rank * shape.places_per_rank() + num_used;
    list[static_cast<size_t>(slot)] = expert;
    if (++num_used < shape.places_per_rank()) ranks.emplace(rank_load + share, rank);
  }
  return list;
}

}  // namespace moebius::moe
