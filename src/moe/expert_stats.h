// How many tokens each expert got, by MoE layer: all of them, and those of prompts, whose experts
// differ from what generation asks for. Written by the device thread at every step, read between
// steps. (Balancing plans from these counts.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"

namespace moebius::moe {

class ExpertStats {
 public:
  ExpertStats() = default;
  ExpertStats(int num_layers, int num_experts)
      : num_layers_(num_layers),
        num_experts_(num_experts),
        counts_(2 * static_cast<size_t>(num_layers) * static_cast<size_t>(num_experts)) {}

  int num_layers() const { return num_layers_; }
  int num_experts() const { return num_experts_; }

  // One count for each entry; a negative entry (no expert) is skipped. `layer` counts MoE layers
  // only.
  void Count(int layer, std::span<const int32_t> experts) {
    for (const int32_t expert : experts) {
      if (expert >= 0) ++counts_[Index(layer, expert)];
    }
  }
  // The counts of another rank of the same model; one that has counted nothing yet may be empty.
  void Add(const ExpertStats& other) {
    if (other.counts_.empty()) return;
    if (counts_.empty()) *this = ExpertStats(other.num_layers_, other.num_experts_);
    MOEBIUS_CHECK_EQ(num_layers_, other.num_layers_);
    MOEBIUS_CHECK_EQ(num_experts_, other.num_experts_);
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }
  std::span<const int64_t> Layer(int layer) const {
    return std::span(counts_).subspan(Index(layer, 0), static_cast<size_t>(num_experts_));
  }
  // Of prompts alone.
  std::span<const int64_t> PromptLayer(int layer) const { return Layer(num_layers_ + layer); }
  // [2, layers, experts], all and those of prompts: what a ChooseSlots operation counts in, or is
  // copied to.
  std::span<int64_t> counts() { return counts_; }
  std::span<const int64_t> counts() const { return counts_; }
  void Clear() { counts_.assign(counts_.size(), 0); }

 private:
  size_t Index(int layer, int expert) const {
    return static_cast<size_t>(layer) * static_cast<size_t>(num_experts_) +
           static_cast<size_t>(expert);
  }

  int num_layers_ = 0;
  int num_experts_ = 0;
  std::vector<int64_t> counts_;
};

}  // namespace moebius::moe
