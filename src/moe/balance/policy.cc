#include "moe/balance/policy.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <numeric>

#include "base/suggest.h"
#include "moe/balance/cost.h"
#include "moe/balance/plans.h"
#include "moe/balance/replicas.h"

namespace moebius::moe {
namespace {

constexpr std::array<const char*, 3> kPolicyNames = {"deepseek", "trtllm", "improve"};

Status CheckLoad(const SlotShape& shape, std::span<const double> load) {
  if (load.size() != static_cast<size_t>(shape.num_experts)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "balance: {} loads, expected one for each of {} experts", load.size(),
                     shape.num_experts);
  }
  for (size_t e = 0; e < load.size(); ++e) {
    if (!(load[e] >= 0) || !std::isfinite(load[e])) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "balance: expert {} has load {}, expected a finite number of at least 0", e,
                       load[e]);
    }
  }
  if (!std::isfinite(std::accumulate(load.begin(), load.end(), 0.0))) {
    return MakeError(ErrorCode::kInvalidArgument, "balance: the loads' sum is not finite");
  }
  return {};
}

Status CheckPresent(const SlotShape& shape, std::span<const int32_t> present) {
  if (present.size() != static_cast<size_t>(shape.num_places())) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "balance: the present list has {} places, expected {} ({} ranks of {})",
                     present.size(), shape.num_places(), shape.num_ranks, shape.places_per_rank());
  }
  std::vector<bool> held(static_cast<size_t>(shape.num_experts));
  for (int p = 0; p < shape.num_places(); ++p) {
    const int32_t e = present[static_cast<size_t>(p)];
    const int rank = p / shape.places_per_rank();
    const bool empty = p % shape.places_per_rank() >= shape.SlotsOf(rank);
    if (empty != (e < 0)) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "balance: place {} of the present list is {}, but rank {} has {} slots", p,
                       empty ? "not empty" : "empty", rank, shape.SlotsOf(rank));
    }
    if (e >= shape.num_experts) {
      return MakeError(
          ErrorCode::kInvalidArgument,
          "balance: place {} of the present list holds expert {}, expected one below {}", p, e,
          shape.num_experts);
    }
    if (e >= 0) held[static_cast<size_t>(e)] = true;
  }
  for (size_t e = 0; e < held.size(); ++e) {
    if (!held[e]) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "balance: expert {} has no slot in the present list, expected at least one",
                       e);
    }
  }
  return {};
}

// The two published policies fill all ranks alike.
Status CheckEven(BalancePolicy policy, const SlotShape& shape) {
  if (shape.num_slots % shape.num_ranks != 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "balance policy {}: {} slots on {} ranks, expected a multiple of the ranks",
                     PolicyName(policy), shape.num_slots, shape.num_ranks);
  }
  if (policy == BalancePolicy::kDeepSeek && shape.num_ranks % shape.num_nodes != 0) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "balance policy deepseek: {} ranks on {} nodes, expected a multiple of the nodes",
        shape.num_ranks, shape.num_nodes);
  }
  return {};
}

Status CheckOptions(const ImproveOptions& options) {
  const auto within = [](const char* what, double value, double most) -> Status {
    if (value >= 0 && value <= most) return {};
    return MakeError(ErrorCode::kInvalidArgument, "balance: {} is {}, expected 0 to {}", what,
                     value, most);
  };
  MOEBIUS_TRY(within("good_enough", options.good_enough, 1e3));
  MOEBIUS_TRY(within("min_gain", options.min_gain, 1e3));
  MOEBIUS_TRY(within("slot_gain", options.slot_gain, 1e3));
  MOEBIUS_TRY(within("max_moves", options.max_moves, INT_MAX));
  if (options.cost == nullptr) return {};
  MOEBIUS_TRY(within("the cost's tile_rows", options.cost->tile_rows, 1e9));
  MOEBIUS_TRY(within("the cost's seconds_per_row", options.cost->seconds_per_row, 1e9));
  MOEBIUS_TRY(
      within("the cost's seconds_per_active_expert", options.cost->seconds_per_active_expert, 1e9));
  return within("the number of tokens that the cost is for", options.tokens, 1e15);
}

// share(load, copies, copy): what the n-th copy of an expert gets.
template <typename Load, typename Share>
std::vector<Load> LoadsOfRanks(int num_ranks, std::span<const Load> load,
                               std::span<const int32_t> experts, const Share& share) {
  std::vector<int> copies(load.size());
  for (const int32_t e : experts) {
    if (e >= 0) ++copies[static_cast<size_t>(e)];
  }
  std::vector<int> seen(load.size());
  std::vector<Load> loads(static_cast<size_t>(num_ranks));
  const size_t places_per_rank = experts.size() / loads.size();
  for (size_t p = 0; p < experts.size(); ++p) {
    if (experts[p] < 0) continue;
    const auto e = static_cast<size_t>(experts[p]);
    loads[p / places_per_rank] += share(load[e], copies[e], seen[e]++);
  }
  return loads;
}

}  // namespace

Status CheckShape(const SlotShape& shape) {
  const auto positive = [](const char* what, int value) -> Status {
    if (value >= 1) return {};
    return MakeError(ErrorCode::kInvalidArgument, "balance: {} is {}, expected at least 1", what,
                     value);
  };
  MOEBIUS_TRY(positive("the number of experts", shape.num_experts));
  MOEBIUS_TRY(positive("the number of ranks", shape.num_ranks));
  MOEBIUS_TRY(positive("the number of expert groups", shape.num_groups));
  MOEBIUS_TRY(positive("the number of nodes", shape.num_nodes));
  if (shape.num_slots < shape.num_experts) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "balance: {} slots, expected at least one for each of {} experts",
                     shape.num_slots, shape.num_experts);
  }
  if (shape.num_ranks > shape.num_slots) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "balance: {} ranks, expected at most {}, the slots", shape.num_ranks,
                     shape.num_slots);
  }
  if (shape.num_experts % shape.num_groups != 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "balance: {} experts in {} groups, expected a multiple of the groups",
                     shape.num_experts, shape.num_groups);
  }
  return {};
}

Result<BalancePolicy> ParsePolicy(const std::string& name) {
  for (size_t i = 0; i < kPolicyNames.size(); ++i) {
    if (name == kPolicyNames[i]) return static_cast<BalancePolicy>(i);
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "balance policy '{}', expected deepseek, trtllm or improve{}", name,
                   DidYouMean(name, {kPolicyNames.begin(), kPolicyNames.end()}));
}

const char* PolicyName(BalancePolicy policy) { return kPolicyNames[static_cast<size_t>(policy)]; }

Result<SlotList> PlanLayer(BalancePolicy policy, const SlotShape& shape,
                           std::span<const double> load, std::span<const int32_t> present,
                           const ImproveOptions& options) {
  MOEBIUS_TRY(CheckShape(shape));
  MOEBIUS_TRY(CheckLoad(shape, load));
  if (policy == BalancePolicy::kImprove) {
    MOEBIUS_TRY(CheckOptions(options));
    if (!present.empty()) MOEBIUS_TRY(CheckPresent(shape, present));
    return PlanImprove(shape, load, present, options);
  }
  MOEBIUS_TRY(CheckEven(policy, shape));
  return policy == BalancePolicy::kDeepSeek ? PlanDeepSeek(shape, load) : PlanTrtllm(shape, load);
}

std::vector<double> RankLoads(int num_ranks, std::span<const double> load,
                              std::span<const int32_t> experts) {
  return LoadsOfRanks(num_ranks, load, experts,
                      [](double all, int copies, int /*copy*/) { return all / copies; });
}

std::vector<int64_t> RankLoads(int num_ranks, std::span<const int64_t> load,
                               std::span<const int32_t> experts) {
  return LoadsOfRanks(num_ranks, load, experts, [](int64_t all, int copies, int copy) {
    return all / copies + (copy < all % copies ? 1 : 0);
  });
}

double Imbalance(std::span<const double> loads) {
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (total <= 0) return 0;
  const double mean = total / static_cast<double>(loads.size());
  return *std::max_element(loads.begin(), loads.end()) / mean - 1;
}

double BestImbalance(const SlotShape& shape, std::span<const double> load) {
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  if (total <= 0) return 0;
  std::vector<int> copies(load.size(), 1);
  for (const int32_t e :
       ExtraCopies(load, shape.num_slots - shape.num_experts, ShareTie::kFewestCopies)) {
    ++copies[static_cast<size_t>(e)];
  }
  double heaviest = 0;
  for (size_t e = 0; e < load.size(); ++e) heaviest = std::max(heaviest, load[e] / copies[e]);
  return std::max(0.0, heaviest / (total / shape.num_ranks) - 1);
}

int NumMoves(std::span<const int32_t> present, std::span<const int32_t> next) {
  int moves = 0;
  for (size_t p = 0; p < next.size(); ++p) moves += present[p] != next[p] ? 1 : 0;
  return moves;
}

int NumSameRankCopies(const SlotShape& shape, std::span<const int32_t> experts) {
  const int places = shape.places_per_rank();
  int copies = 0;
  for (int p = 0; p < shape.num_places(); ++p) {
    const int32_t e = experts[static_cast<size_t>(p)];
    if (e < 0) continue;
    const auto first = experts.begin() + p / places * places;
    copies += std::find(first, experts.begin() + p, e) != experts.begin() + p ? 1 : 0;
  }
  return copies;
}

}  // namespace moebius::moe
