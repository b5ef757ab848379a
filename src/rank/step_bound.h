// How long the next step may take before a rank that has not come is given up: some times what
// steps of so many rows, or the longest ones, took lately. Owned by a leader, used by its device
// thread. The leaders of ranks that step together take the longest of theirs (rank/lockstep.h).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace moebius::rank {

struct StepBoundOptions {
  // No step is given up sooner: a stop that the heartbeat forgives (rank/control.h) is no reason.
  std::chrono::nanoseconds least = std::chrono::seconds(2);
  std::chrono::nanoseconds most = std::chrono::minutes(1);
  double factor = 10;  // of the predicted time
};

// Where more threads than cpus take turns, each waits for all others before it goes on; under a
// sanitizer everything takes many times as long.
std::chrono::nanoseconds LeastStepBound(int num_threads, int num_cpus);

class StepBound {
 public:
  explicit StepBound(const StepBoundOptions& options) : options_(options) {}

  // rows: of the fullest rank. `most` until kStepsToLearn steps are known.
  std::chrono::nanoseconds Of(int64_t rows) const;
  void Learn(int64_t rows, std::chrono::nanoseconds took);

  static constexpr int kStepsToLearn = 16;

 private:
  static constexpr int kNumSizes = 40;

  // Of 0 rows, of 1, of 2 and 3, of 4 to 7, ...
  static int SizeOf(int64_t rows);
  double Predict(int64_t rows) const;  // nanoseconds

  const StepBoundOptions options_;
  std::array<double, kNumSizes> longest_{};  // nanoseconds, by size; 0: none was seen
  int num_known_ = 0;
};

}  // namespace moebius::rank
