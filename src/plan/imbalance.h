// How unevenly tokens fall on experts and on the ranks that hold them. Pure functions, any thread;
// what does not depend on the number of tokens is computed once a process and kept.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "layout/parallel_layout.h"

namespace moebius::plan {

// How unevenly the router loads experts: shares of the load by expert, from Zipf's exponent (the
// r-th most loaded expert gets r^-zipf, experts in a random but fixed order) or from recorded
// counts; neither: uniform.
struct Imbalance {
  double zipf = 0;
  std::vector<int64_t> counts;  // by expert, of one layer; replaces zipf
  bool balanced = false;        // EPLB: replicas and placement by a greedy planner
};

// Zipf's exponent of a model's router where the user gives none, and where it comes from.
struct DefaultSkew {
  double zipf = 0;
  bool assumed = false;     // else published of this very model
  const char* source = "";  // for a report
};
DefaultSkew DefaultSkewOf(const layout::ModelNumbers& model);

// A layout's ranks and slots under an imbalance, for any number of tokens.
class ExpertLoads {
 public:
  ExpertLoads(const Imbalance& imbalance, int64_t num_experts, int64_t top_k,
              std::vector<int64_t> slots_per_rank);

  // Expected load of the busiest rank over the mean of all (1 = balanced) when `tokens` tokens in
  // all are routed: skew, chance and, under EPLB, drift since it was planned. Chance: the rank's
  // load of n assignments deviates by sqrt(n); the largest of r such deviations by Blom's order
  // statistic. 1 for one rank.
  double BusiestRank(int64_t tokens) const;

  // Expected number of slots on a rank that get a token at all, on a rank with `load` times the
  // mean load: what must be read of its weights.
  double SlotsHit(int64_t tokens, double load) const;

  double slots_per_rank() const { return slots_per_rank_; }

 private:
  struct Bucket {  // slots of nearly the same share
    double share = 0;
    double num_slots = 0;
  };

  double top_k_ = 1;
  double slots_per_rank_ = 0;
  double drift_ = 0;              // of a rank's load, relative
  std::vector<double> top_mean_;  // mean share of the j most loaded ranks, j from 1
  std::vector<Bucket> buckets_;   // of all slots of all ranks
};

// The loads of a layout's ranks; of one rank where experts are not spread.
std::shared_ptr<const ExpertLoads> LoadsOf(const Imbalance& imbalance,
                                           const layout::ParallelLayout& layout,
                                           int64_t num_experts, int64_t top_k);

// Expected largest of n standard normals.
double LargestOf(size_t n);

// ExpertLoads::BusiestRank for a layout.
double BusiestRank(const Imbalance& imbalance, const layout::ParallelLayout& layout,
                   int64_t num_experts, int64_t top_k, int64_t tokens);

}  // namespace moebius::plan
