// The tokens that each rank has routed, by layer and expert, where every process of a deployment
// sees them: ranks write their own now and then, whoever asks adds them up, and no message is sent.
// A view of memory that it does not own: copy it freely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moe/expert_stats.h"

namespace moebius::rank {

class ExpertCounts {
 public:
  // max_layers: MoE layers that a rank may count (a checkpoint may turn out to have fewer).
  static size_t NumBytes(int num_ranks, int max_layers, int num_experts);

  // memory: NumBytes of zeros at a multiple of 8, the same ones for all.
  ExpertCounts(std::span<std::byte> memory, int num_ranks, int max_layers, int num_experts);

  // `rank` counts so many now. Its device thread calls it.
  void Publish(int rank, const moe::ExpertStats& stats) const;
  // Of one, each and all ranks, as of a moment ago; no layers until one has published. Any thread.
  moe::ExpertStats Of(int rank) const;
  std::vector<moe::ExpertStats> OfEach() const;
  moe::ExpertStats Sum() const;

 private:
  // A rank's words: how many layers it counts, then its counts.
  int64_t* WordsOf(int rank) const;

  int64_t* words_;
  int num_ranks_;
  int max_layers_;
  int num_experts_;
};

}  // namespace moebius::rank
