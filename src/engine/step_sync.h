// What ranks that compute a step together settle around it: that there is one, who brings how many
// rows, what was drawn. One rank alone has none. The device thread calls what says nothing else.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "engine/rank_load.h"
#include "engine/step_plan.h"
#include "engine/step_runner.h"

namespace moebius::engine {

// A step as all its ranks know it.
struct SharedStep {
  int64_t step = -1;             // of all ranks, counted from the start: no plan's step_id
  std::vector<int64_t> dp_rows;  // by data-parallel rank; empty: they share nothing
  int64_t num_moe_chunks = 0;    // 0: the fullest rank's rows decide
  int64_t epoch = 0;             // of the placement of experts
  bool pads = false;             // to the fullest rank's rows, on all ranks
  bool has_rows = true;          // else nobody brought any and nothing is computed
  bool is_last = false;          // every rank wants to end: nothing is computed
  double agree_seconds = 0;      // that this rank took to agree
};

class StepSync {
 public:
  virtual ~StepSync() = default;

  // Whether this rank has the logits and draws from them.
  virtual bool draws() const = 0;
  // Whether End leaves the drawn tokens here, for rows of the next step that begin with them.
  virtual bool hears_tokens() const = 0;
  // Pipeline stages that a step passes one after the other. Of more than one, Collect brings what
  // was drawn; meanwhile the next step begins, of other requests.
  virtual int num_stages() const = 0;

  // Wakes WaitForWork: there is a plan, or it is time to end. Any thread.
  virtual void Ring() = 0;
  // Sleeps until Ring, a peer's next step, or `until`.
  virtual void WaitForWork(std::chrono::steady_clock::time_point until) = 0;
  // A peer has begun the next step, or waits to end; or the ranks have failed, as Begin will say.
  virtual bool IsWanted() const = 0;

  // Whether the plan may be part of the step that is agreed on next. Else it waits, and this rank
  // brings no rows.
  virtual bool MayBegin(const StepPlan& /*plan*/) const { return true; }
  // The number of the step after those that Begin was called for. Any thread.
  virtual int64_t NextStep() const = 0;
  // Agrees on the next step. plan null: this rank brings no rows; wants_end: and never will.
  virtual Result<SharedStep> Begin(const StepPlan* plan, bool wants_end) = 0;
  // The pass of this rank is over: what its collectives say. output->sampled goes from the rank
  // that drew to those that need it: all of it to the one that planned, the tokens alone to those
  // that embed.
  virtual Status End(const StepPlan& plan, StepOutput* output) = 0;
  // With several stages, after End of each step that brought rows, in order: what the last stage
  // drew. Of the thread that planned.
  virtual Result<StepOutput> Collect(std::chrono::milliseconds timeout) = 0;
  // This rank cannot go on: nobody shall wait for it.
  virtual void Abort() = 0;

  // What this rank has routed since the start; told now and then.
  virtual void Publish(const moe::ExpertStats& stats) = 0;
  // Where this rank's steps are counted.
  virtual RankCounters& counters() = 0;
  // What its waits for others add to.
  virtual const std::atomic<int64_t>& waited_ns() const = 0;
};

// Collect for a step that was run here: `output`, of this rank's pass, becomes what the later
// stages made of it. kCorrupt: they drew something else.
Status BringHome(StepSync& sync, const StepPlan& plan, std::chrono::milliseconds timeout,
                 StepOutput* output);

// Collect for the steps that nobody waits for any more: later stages wait to be rid of them. take:
// waits for the next one to be over here, and says whether later stages have it; nothing: no other
// comes.
void DropSteps(StepSync& sync, const std::function<std::optional<bool>()>& take);

}  // namespace moebius::engine
