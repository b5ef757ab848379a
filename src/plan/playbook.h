// The published decision rules of AMD's "vLLM MoE Playbook", literally: four questions, no model of
// time behind them. Where the rules leave a range open they say so here too. What this program
// itself recommends is decide.h; the two stand side by side. Pure, any thread.
//
//   1. concurrency: at most 128 in flight: TP over the node; 512 and more: DP; between: measure
//   both
//   2. activation density k/E: below 1 %: EP off; above 3 %: EP on; between: measure both
//   3. MLA or MQA under DP: EP on, whatever the density
//   4. memory: tight: DP with EP. One node: no PP unless the weights do not fit. Heads that TP does
//      not divide: DP or PP instead
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout/parallel_layout.h"

namespace moebius::plan {

struct PlaybookQuestion {
  int64_t concurrency = 64;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t num_heads = 0;
  bool latent_attention = false;  // MLA or MQA: one head of keys and values
  int num_gpus = 8;
  int gpus_per_node = 8;
  bool memory_tight = false;
  bool weights_fit_node = true;
};

enum class PlaybookParallel : uint8_t { kTp, kDp, kTpOrDp, kDpOrPp };
enum class PlaybookEp : uint8_t { kOff, kOn, kUndecided };

struct PlaybookStep {
  std::string question;
  std::string found;   // the numbers
  std::string answer;  // what the rules make of them
};

struct PlaybookAnswer {
  PlaybookParallel parallel = PlaybookParallel::kTp;
  PlaybookEp expert_parallel = PlaybookEp::kOff;
  std::vector<PlaybookStep> steps;  // four
  // What the answer leaves: one layout where the rules decide, each alternative where they do not.
  std::vector<layout::ParallelConfig> configs;
  bool decided() const { return configs.size() == 1; }
  std::string text;  // "TP8+EP", "TP8+EP or DP8+EP: the rules do not decide"
  // What the rules put in its place where memory is tight, which they give no number for: set where
  // the question says so and the answer is another one.
  std::optional<layout::ParallelConfig> tight;
};
PlaybookAnswer AskPlaybook(const PlaybookQuestion& question);

}  // namespace moebius::plan
