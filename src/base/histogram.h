// A histogram as Prometheus understands one: counts by upper bound, their sum and number. A plain
// value; whoever writes it owns it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace moebius {

class Histogram {
 public:
  Histogram() = default;
  // Ascending upper bounds, inclusive; the last bucket, above them all, has none.
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {}

  // One as it was told: a count for each bound, and one more.
  Histogram(std::span<const double> bounds, std::span<const int64_t> counts, double sum)
      : bounds_(bounds.begin(), bounds.end()), counts_(counts.begin(), counts.end()), sum_(sum) {
    counts_.resize(bounds_.size() + 1);
    for (const int64_t count : counts_) count_ += count;
  }

  // `times` equal values.
  void Observe(double value, int64_t times = 1) {
    const auto at = std::ranges::lower_bound(bounds_, value);
    counts_[static_cast<size_t>(at - bounds_.begin())] += times;
    count_ += times;
    sum_ += value * static_cast<double>(times);
  }

  // The observations of another one, as they are if it has the same bounds; else each counts where
  // its upper bound there belongs here.
  void Add(const Histogram& other) {
    for (size_t i = 0; i < other.counts_.size(); ++i) {
      const auto at = i < other.bounds_.size() ? std::ranges::lower_bound(bounds_, other.bounds_[i])
                                               : bounds_.end();
      counts_[static_cast<size_t>(at - bounds_.begin())] += other.counts_[i];
    }
    count_ += other.count_;
    sum_ += other.sum_;
  }

  std::span<const double> bounds() const { return bounds_; }
  std::span<const int64_t> counts() const { return counts_; }  // not cumulative
  int64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_{0};
  int64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace moebius
