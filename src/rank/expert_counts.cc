#include "rank/expert_counts.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"

namespace moebius::rank {

static_assert(std::atomic_ref<int64_t>::is_always_lock_free);

namespace {

size_t WordsOfARank(int max_layers, int num_experts) {
  return 1 + 2 * static_cast<size_t>(max_layers) * static_cast<size_t>(num_experts);
}

int64_t Load(int64_t& word) { return std::atomic_ref(word).load(std::memory_order_relaxed); }
void Store(int64_t& word, int64_t value) {
  std::atomic_ref(word).store(value, std::memory_order_relaxed);
}

}  // namespace

size_t ExpertCounts::NumBytes(int num_ranks, int max_layers, int num_experts) {
  return static_cast<size_t>(num_ranks) * WordsOfARank(max_layers, num_experts) * sizeof(int64_t);
}

ExpertCounts::ExpertCounts(std::span<std::byte> memory, int num_ranks, int max_layers,
                           int num_experts)
    : words_(reinterpret_cast<int64_t*>(memory.data())),
      num_ranks_(num_ranks),
      max_layers_(max_layers),
      num_experts_(num_experts) {
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(num_ranks, max_layers, num_experts));
}

int64_t* ExpertCounts::WordsOf(int rank) const {
  return words_ + static_cast<size_t>(rank) * WordsOfARank(max_layers_, num_experts_);
}

void ExpertCounts::Publish(int rank, const moe::ExpertStats& stats) const {
  if (stats.num_layers() == 0) return;
  MOEBIUS_CHECK_LE(stats.num_layers(), max_layers_);
  MOEBIUS_CHECK_EQ(stats.num_experts(), num_experts_);
  int64_t* next = WordsOf(rank);
  Store(*next++, stats.num_layers());
  for (const int64_t count : stats.counts()) Store(*next++, count);
}

moe::ExpertStats ExpertCounts::Of(int rank) const {
  int64_t* next = WordsOf(rank);
  const auto num_layers = static_cast<int>(Load(*next++));
  moe::ExpertStats stats(num_layers, num_layers > 0 ? num_experts_ : 0);
  for (int64_t& count : stats.counts()) count = Load(*next++);
  return stats;
}

std::vector<moe::ExpertStats> ExpertCounts::OfEach() const {
  std::vector<moe::ExpertStats> all;
  for (int rank = 0; rank < num_ranks_; ++rank) all.push_back(Of(rank));
  return all;
}

moe::ExpertStats ExpertCounts::Sum() const {
  moe::ExpertStats sum;
  for (int rank = 0; rank < num_ranks_; ++rank) sum.Add(Of(rank));
  return sum;
}

}  // namespace moebius::rank
