#include "engine/rank_load.h"

#include <cmath>
#include <iterator>

namespace moebius::engine {
namespace {

constexpr int64_t RankLoad::* kNumbers[] = {
    &RankLoad::num_steps,         &RankLoad::num_empty_steps,
    &RankLoad::num_rows,          &RankLoad::num_expert_rows,
    &RankLoad::num_home_rows,     &RankLoad::num_copy_rows,
    &RankLoad::dispatch_bytes,    &RankLoad::combine_bytes,
    &RankLoad::num_latency_steps, &RankLoad::num_throughput_steps,
};

// There is one writer, so nothing comes between.
void Grow(std::atomic<int64_t>& counter, int64_t by) {
  if (by == 0) return;
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

int64_t Nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

double SecondsOf(const std::atomic<int64_t>& ns) {
  return static_cast<double>(ns.load(std::memory_order_relaxed)) * 1e-9;
}

}  // namespace

void RankCounters::Add(const RankLoad& step) {
  static_assert(std::size(kNumbers) == kNumNumbers);
  for (int i = 0; i < kNumNumbers; ++i) Grow(numbers_[i], step.*kNumbers[i]);
  for (size_t i = 0; i < kNumStepParts; ++i) {
    Grow(part_ns_[i], Nanoseconds(step.parts.*kStepParts[i].seconds));
  }
  Grow(step_ns_, Nanoseconds(step.seconds));
  next_step_.store(step.last_step + 1, std::memory_order_relaxed);
}

RankLoad RankCounters::Read() const {
  RankLoad load;
  for (int i = 0; i < kNumNumbers; ++i) {
    load.*kNumbers[i] = numbers_[i].load(std::memory_order_relaxed);
  }
  for (size_t i = 0; i < kNumStepParts; ++i) {
    load.parts.*kStepParts[i].seconds = SecondsOf(part_ns_[i]);
  }
  load.seconds = SecondsOf(step_ns_);
  load.last_step = next_step_.load(std::memory_order_relaxed) - 1;
  return load;
}

}  // namespace moebius::engine
