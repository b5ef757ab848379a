// Which layers of a placement change next, and to what: from the load of decaying windows, the
// layers that lose most of their predicted time by it; or at random, for tests that force moves.
// Keeps the placement that it planned from. One thread.
//
// A layer's time is predicted for a step of mean size: the tokens that its windows counted, of
// decoding and of prompts, divided by their steps. Where steps differ much, small ones wait for
// more weights than that, large ones for fewer.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "moe/balance/cost.h"
#include "moe/balance/policy.h"
#include "moe/expert_stats.h"
#include "rank/balance_board.h"
#include "rank/balance_layout.h"

namespace moebius::rank {

struct UpdateChoiceOptions {
  int layer_updates_per_iter = 1;  // layers of one plan, at most
  int num_staging = 1;             // of each rank: its slots that one plan changes, at most
  double decay = 0.5;              // of what was counted before, with each full window of a layer
  // What a layer's busiest rank loses, as a part of a mean rank's time, at least.
  double min_gain = 0.05;
  moe::ExpertCost cost{.seconds_per_row = 1};  // what time is; so: tokens
  // Of an expert on average, that a layer's window holds: with fewer, plans follow chance.
  int64_t min_tokens_per_expert = 128;
  bool is_random = false;  // swaps slots at random instead, whatever the load
  uint32_t seed = 1;
};

class UpdateChoice {
 public:
  UpdateChoice(BalanceLayout layout, const UpdateChoiceOptions& options);

  // What was counted since the start, in so many steps.
  void AddWindow(const moe::ExpertStats& counts, int64_t num_steps);
  // The next changes: none where too little was counted since layers were last looked at, or
  // nothing pays. A layer is looked at again until nothing does: its change may find no room in a
  // plan, or for a part alone, and the plan may be dropped.
  std::vector<LayerUpdate> Choose();
  // They are the placement now; the number of slots that this changed.
  int Accept(const std::vector<LayerUpdate>& updates);

 private:
  // What a layer has counted, by expert, and in how many steps.
  struct Window {
    std::vector<double> tokens;
    double steps = 0;
  };
  struct LayerLoad {
    Window filling;       // until there is enough to be looked at
    Window past;          // those that were full, decayed
    bool is_due = false;  // for a look
  };
  struct Candidate {
    int layer = 0;
    double gain = 0;  // seconds of a step
  };
  using StagingLeft = std::vector<int>;  // by world rank

  // Tokens (times experts a token) of a step.
  double StepTokens(int layer) const;
  double Seconds(int layer, const moe::SlotList& experts) const;
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
  int64_t last_num_steps_ = 0;
  std::vector<LayerLoad> loads_;  // by layer
  std::minstd_rand random_;
};

}  // namespace moebius::rank
