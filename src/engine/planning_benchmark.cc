#include "engine/planning_benchmark.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <vector>

#include "base/check.h"
#include "engine/scheduler.h"

namespace moebius::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kVocabSize = 100000;

SchedulerConfig ConfigFor(const PlanningLoad& load) {
  SchedulerConfig config;
  config.vocab_size = kVocabSize;
  config.block_size = load.block_size;
  config.max_model_len = load.prompt_len + load.num_steps + 64;
  config.max_num_seqs = load.num_seqs;
  config.num_blocks = load.num_seqs * ((config.max_model_len + load.block_size) / load.block_size);
  config.max_num_batched_tokens = load.num_seqs * load.prompt_len;  // one step of prefill
  config.eos_token_ids = {1};
  return config;
}

// One token for every sample, all different from end tokens.
StepOutput OutputOf(const StepPlan& plan) {
  StepOutput output;
  output.step_id = plan.step_id;
  for (int64_t i = 0; i < plan.num_samples(); ++i) {
    output.sampled.push_back(
        {.token = static_cast<TokenId>(2 + (plan.step_id * 31 + i * 7) % (kVocabSize - 2))});
  }
  return output;
}

}  // namespace

PlanningTimes MeasurePlanning(const PlanningLoad& load) {
  MOEBIUS_CHECK_GT(load.num_steps, 0);
  Scheduler scheduler(ConfigFor(load));
  int64_t num_events = 0;
  for (int64_t i = 0; i < load.num_seqs; ++i) {
    RequestInput input;
    for (int64_t j = 0; j < load.prompt_len; ++j) {
      input.prompt.push_back(static_cast<TokenId>(2 + (i * 1000003 + j * 17) % (kVocabSize - 2)));
    }
    if (load.has_penalties) {
      input.sampling.repetition_penalty = 1.1f;
      input.sampling.presence_penalty = 0.5f;
    }
    scheduler.Add(RequestId(i), std::move(input), [&](const TokenEvent&) { ++num_events; });
  }
  std::deque<const StepPlan*> plans;
  std::vector<double> times;
  EngineStats stats;
  while (static_cast<int64_t>(times.size()) < load.num_steps) {
    const Clock::time_point begin = Clock::now();
    const StepPlan* plan = scheduler.Plan();
    std::chrono::duration<double, std::micro> time = Clock::now() - begin;
    MOEBIUS_CHECK(plan != nullptr);
    plans.push_back(plan);
    if (plans.size() < kMaxStepsInFlight) continue;
    const StepOutput output = OutputOf(*plans.front());
    plans.pop_front();
    const Clock::time_point done = Clock::now();
    scheduler.Commit(output);
    scheduler.ReadStats(&stats);  // twice a step, as the engine does
    scheduler.ReadStats(&stats);
    time += Clock::now() - done;
    // Only steps in which everybody decodes: prefill is over.
    if (plan->num_samples() == load.num_seqs) times.push_back(time.count());
  }
  std::ranges::sort(times);
  PlanningTimes result;
  result.median = times[times.size() / 2];
  result.p99 = times[times.size() * 99 / 100];
  result.max = times.back();
  return result;
}

}  // namespace moebius::engine
