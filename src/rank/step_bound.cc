#include "rank/step_bound.h"

#include <algorithm>
#include <bit>

namespace moebius::rank {
namespace {

// What was seen n steps of a size ago counts kMemory^n: a slow time is forgotten within hundreds.
constexpr double kMemory = 0.99;

// What GCC defines, Clang is asked for.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOEBIUS_IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MOEBIUS_IS_SANITIZED 1
#endif
#endif
#ifdef MOEBIUS_IS_SANITIZED
constexpr int kSlowdown = 10;
#else
constexpr int kSlowdown = 1;
#endif

}  // namespace

std::chrono::nanoseconds LeastStepBound(int num_threads, int num_cpus) {
  const int turns = (num_threads + num_cpus - 1) / std::max(num_cpus, 1);
  return StepBoundOptions().least * std::max(turns, 1) * kSlowdown;
}

int StepBound::SizeOf(int64_t rows) {
  return std::min(static_cast<int>(std::bit_width(static_cast<uint64_t>(rows))), kNumSizes - 1);
}

// From the next smaller size that was seen: as much longer as there are more rows, which is more
// than it takes. And never less than any recent step took: one row that attends to a long prompt
// takes longer than many that attend to short ones.
double StepBound::Predict(int64_t rows) const {
  const int size = SizeOf(rows);
  double predicted = *std::ranges::max_element(longest_);
  for (int known = size; known >= 0; --known) {
    const double longest = longest_[static_cast<size_t>(known)];
    if (longest == 0) continue;
    predicted = std::max(predicted, longest * static_cast<double>(int64_t{1} << (size - known)));
    break;
  }
  return predicted;
}

std::chrono::nanoseconds StepBound::Of(int64_t rows) const {
  if (num_known_ < kStepsToLearn) return options_.most;
  const double bound = options_.factor * Predict(rows);
  if (bound >= static_cast<double>(options_.most.count())) return options_.most;
  return std::clamp(std::chrono::nanoseconds(static_cast<int64_t>(bound)),
                    std::min(options_.least, options_.most), options_.most);
}

void StepBound::Learn(int64_t rows, std::chrono::nanoseconds took) {
  double& longest = longest_[static_cast<size_t>(SizeOf(rows))];
  longest = std::max(longest * kMemory, static_cast<double>(took.count()));
  num_known_ = std::min(num_known_ + 1, kStepsToLearn);
}

}  // namespace moebius::rank
