// What one rank has done: a step at a time, and all of it since the start, for whoever watches. The
// rank's device thread writes its counters, which may lie in memory that other processes map; any
// thread of any process reads them, and asks the rank nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace moebius::engine {

// Seconds of a step, by the clock of the device thread: they add up to the step.
struct StepParts {
  double attention = 0;
  double dispatch = 0;  // rows on their way to experts
  double experts = 0;   // routing, expert products, the shared expert
  double combine = 0;   // results on their way home
  double wait = 0;      // for other ranks, wherever in the step
  double head = 0;      // logits
  double sampling = 0;
  double other = 0;  // embedding, dense layers, norms
};
struct StepPart {
  const char* name;
  double StepParts::* seconds;
};
constexpr int kNumStepParts = 8;
constexpr std::array<StepPart, kNumStepParts> kStepParts = {{{"attention", &StepParts::attention},
                                                             {"dispatch", &StepParts::dispatch},
                                                             {"experts", &StepParts::experts},
                                                             {"combine", &StepParts::combine},
                                                             {"wait", &StepParts::wait},
                                                             {"head", &StepParts::head},
                                                             {"sampling", &StepParts::sampling},
                                                             {"other", &StepParts::other}}};
static_assert(sizeof(StepParts) == kNumStepParts * sizeof(double));

// What a rank has taken, once it is ready.
struct RankMemory {
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t kv_bytes = 0;
};

// Of one step, or of all steps since the start.
struct RankLoad {
  // Which rank; the counters do not know.
  int rank = 0;
  int dp = 0;
  int tp = 0;
  int pp = 0;
  // Among the ranks that whole experts are spread over, the first slots on the first; -1: they are
  // not spread.
  int expert_rank = -1;
  RankMemory memory = {};  // likewise

  int64_t num_steps = 0;
  int64_t num_empty_steps = 0;    // of those, without rows of this rank: it served its peers
  int64_t num_rows = 0;           // tokens; all ranks of a data-parallel group have the same ones
  int64_t num_expert_rows = 0;    // tokens that its experts computed, each once an expert
  int64_t num_home_rows = 0;      // of those, its own tokens: what needed no way
  int64_t num_copy_rows = 0;      // of those, by one of several copies of their expert
  int64_t dispatch_bytes = 0;     // of rows that left for experts of other ranks
  int64_t combine_bytes = 0;      // of results that left for their homes
  int64_t num_latency_steps = 0;  // by how its exchange dealt its copies to threads
  int64_t num_throughput_steps = 0;  // (moe/exchange/mode.h); neither: nothing was exchanged
  int64_t last_step = -1;

  double seconds = 0;  // of steps
  StepParts parts;     // of those
};

// The counters of a rank: memory of zeros is a rank that has done nothing. One thread adds.
class RankCounters {
 public:
  // last_step is the step's, all else grows.
  void Add(const RankLoad& step);
  // Numbers of one moment each, not of the same one.
  RankLoad Read() const;

 private:
  static constexpr int kNumNumbers = 10;
  std::atomic<int64_t> numbers_[kNumNumbers]{};
  std::atomic<int64_t> part_ns_[kNumStepParts]{};
  std::atomic<int64_t> step_ns_{0};
  std::atomic<int64_t> next_step_{0};  // the last one's number + 1
};

}  // namespace moebius::engine
