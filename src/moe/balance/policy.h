// Placements from loads: pure functions, the same result on every machine. Any thread.
//
// A load is the tokens that each expert of one layer got (any unit; only ratios count). Copies of
// an expert share its load evenly in everything that is planned and judged here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::moe {

// The slots of one layer and what binds them.
struct SlotShape {
  int num_experts = 1;
  int num_slots = 1;  // that hold an expert; at least num_experts
  int num_ranks = 1;
  int num_groups = 1;  // of experts: routing chooses groups first (DeepSeek); 1: does not
  int num_nodes = 1;   // machines, of num_ranks / num_nodes ranks each, in order

  // A rank has so many places; the last ones of some may be empty, where ranks do not divide slots.
  constexpr int places_per_rank() const { return (num_slots + num_ranks - 1) / num_ranks; }
  constexpr int num_places() const { return places_per_rank() * num_ranks; }
  // Of a rank's places the first so many hold an expert.
  constexpr int SlotsOf(int rank) const { return FirstSlot(rank + 1) - FirstSlot(rank); }
  // Of the slots alone, empty places not counted: where a rank's begin. Where they are not even the
  // first ranks have one more.
  constexpr int FirstSlot(int rank) const {
    return rank * (num_slots / num_ranks) + std::min(rank, num_slots % num_ranks);
  }
  // Groups can be kept whole on nodes: the last one, which has fewest slots, has enough.
  constexpr bool HasNodeGroups() const {
    return num_nodes > 1 && num_groups % num_nodes == 0 && num_ranks % num_nodes == 0 &&
           (num_slots - FirstSlot(num_ranks - num_ranks / num_nodes)) * num_nodes >= num_experts;
  }
};
// kInvalidArgument names the number that is wrong and what was expected.
Status CheckShape(const SlotShape& shape);

// The expert of each place [num_places]; negative: empty. Place p lies on rank p / places_per_rank.
using SlotList = std::vector<int32_t>;

enum class BalancePolicy : uint8_t {
  kDeepSeek,  // DeepSeek's EPLB: groups on nodes where they divide, else one group on one node
  kTrtllm,    // TensorRT-LLM's: most loaded first, to the lightest rank with a free slot
  // The best exchanges on the present placement, while they pay: a slot whose expert stays does not
  // change, no rank gets a second copy of an expert unless there are more copies than ranks, and
  // groups stay on their nodes where they divide.
  kImprove,
};
// "deepseek", "trtllm", "improve". kInvalidArgument lists them.
Result<BalancePolicy> ParsePolicy(const std::string& name);
const char* PolicyName(BalancePolicy policy);

struct ExpertCost;  // moe/balance/cost.h

// What limits kImprove.
struct ImproveOptions {
  // Stops where the imbalance (max / mean - 1, by rank) is at most this, or the heaviest rank
  // within so much of what no placement can beat.
  double good_enough = 0.005;
  // No change at all unless it takes at least this part of a mean rank's load, by which it is
  // judged, from the heaviest one (hysteresis). Of a first placement, which has no present one,
  // nothing is asked.
  double min_gain = 0;
  // An update makes only moves that take at least this part of a mean rank's load from those above
  // good_enough, for each slot that they write: what a slot's bytes are worth. It may then stop
  // above good_enough.
  double slot_gain = 0.0075;
  int max_moves = 1 << 30;  // slots that get another expert
  // Loads are predicted seconds instead of tokens, of steps of so many rows (tokens x top_k).
  const ExpertCost* cost = nullptr;
  double tokens = 0;
};

// The placement of one layer. present: the list to start from, empty for none (kImprove only looks
// at it). kInvalidArgument: the shape is not what the policy can plan for (deepseek, trtllm: ranks
// must divide slots; deepseek: nodes divide ranks), or load or present do not fit it.
Result<SlotList> PlanLayer(BalancePolicy policy, const SlotShape& shape,
                           std::span<const double> load, std::span<const int32_t> present,
                           const ImproveOptions& options = {});

// What each of the ranks, which have as many places each, gets of a load. Whole tokens stay whole:
// of those that an expert's copies cannot share evenly its first ones get one more.
std::vector<double> RankLoads(int num_ranks, std::span<const double> load,
                              std::span<const int32_t> experts);
std::vector<int64_t> RankLoads(int num_ranks, std::span<const int64_t> load,
                               std::span<const int32_t> experts);
// max / mean - 1; 0 where all are 0.
double Imbalance(std::span<const double> loads);
// What no placement of so many slots can beat, copies being the only means: with the best copies
// for this load the heaviest share may exceed a rank's mean (max / mean - 1 >= heaviest / mean -
// 1).
double BestImbalance(const SlotShape& shape, std::span<const double> load);
// Places that hold another expert in `next`, by place. An expert that stays on its rank in another
// place counts: it would be written again.
int NumMoves(std::span<const int32_t> present, std::span<const int32_t> next);
// Pairs of places on one rank that hold the same expert, beyond the first of each.
int NumSameRankCopies(const SlotShape& shape, std::span<const int32_t> experts);

}  // namespace moebius::moe
