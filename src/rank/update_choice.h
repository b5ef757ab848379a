// Which layers of a placement change next, and to what: from the load of a decaying window, the
// layers whose heaviest rank gets lightest by it; or at random, for tests that force moves. Keeps
// the placement that it planned from. One thread.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "moe/balance/policy.h"
#include "moe/expert_stats.h"
#include "rank/balance_board.h"
#include "rank/balance_layout.h"

namespace moebius::rank {

struct UpdateChoiceOptions {
  int layer_updates_per_iter = 1;  // layers of one plan, at most
  int num_staging = 1;             // of each rank: its slots that one plan changes, at most
  double decay = 0.5;              // of what was counted before, each look at a layer
  double min_gain = 0.05;          // that a layer's imbalance (max / mean - 1) loses, at least
  // Of an expert on average, that a layer gets between two looks at it: with fewer, plans follow
  // chance.
  int64_t min_tokens_per_expert = 128;
  bool is_random = false;  // swaps slots at random instead, whatever the load
  uint32_t seed = 1;
};

class UpdateChoice {
 public:
  UpdateChoice(BalanceLayout layout, const UpdateChoiceOptions& options);

  // What was counted since the start.
  void AddWindow(const moe::ExpertStats& counts);
  // The next changes: none where too little was counted since the last ones, or nothing pays.
  std::vector<LayerUpdate> Choose();
  // They are the placement now; the number of slots that this changed.
  int Accept(const std::vector<LayerUpdate>& updates);

 private:
  struct Candidate {
    int layer = 0;
    double gain = 0;
  };
  using StagingLeft = std::vector<int>;  // by world rank

  std::vector<Candidate> Candidates();
  moe::SlotList Plan(int layer, double min_gain, int max_moves) const;
  moe::SlotList PlanWithin(int layer, const StagingLeft& left) const;
  moe::SlotList Shuffled(int layer, const StagingLeft& left);
  std::vector<LayerUpdate> ChooseByLoad();
  std::vector<LayerUpdate> ChooseAtRandom();
  StagingLeft AllStaging() const;
  bool Fits(int layer, const moe::SlotList& experts, const StagingLeft& left) const;
  void Take(int layer, const moe::SlotList& experts, StagingLeft& left) const;

  BalanceLayout layout_;  // experts: of the present
  const UpdateChoiceOptions options_;
  moe::ExpertStats last_counts_;
  std::vector<std::vector<double>> load_;  // by layer and expert, decayed
  std::vector<int64_t> num_tokens_;        // by layer, since the last look at it
  std::minstd_rand random_;
};

}  // namespace moebius::rank
