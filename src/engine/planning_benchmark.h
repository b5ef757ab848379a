// How long the host's part of a step takes: a scheduler with every request running, planned and
// committed two steps deep, with a device that takes no time. For `bench` and for tests.
#pragma once

#include <cstdint>

namespace moebius::engine {

struct PlanningLoad {
  int64_t num_seqs = 256;
  int64_t prompt_len = 1024;
  int64_t num_steps = 500;
  int64_t block_size = 16;
  bool has_penalties = false;
};

// Microseconds a step: plan, commit, token events and statistics together.
struct PlanningTimes {
  double median = 0;
  double p99 = 0;
  double max = 0;
};

PlanningTimes MeasurePlanning(const PlanningLoad& load);

}  // namespace moebius::engine
