// Decides what each step computes: continuous batching, chunked prefill under a token budget,
// prefix-cache hits on admission, preemption by recompute. Knows nothing of devices and never
// waits. Owned by the engine, its thread only.
//
// A plan is committed or taken back as a whole. Up to max_steps_in_flight() plans are out: step
// n + 1 is planned before the tokens of step n are known, so a request that ends in step n may have
// a row in step n + 1. That row is dropped when it comes, and only then are the request's blocks
// freed: no block changes hands while a step that uses it is out.
//
// With num_micro_batches > 1 (pipeline stages) so many plans are out at once, of disjoint requests:
// one whose token is not known yet is in no further plan, and each plan takes an even share of
// those that run. Chunks of one prompt need no drawn token: they may follow each other.
//
// A request whose next draw depends on the token before it (a constraint, a bad word of several
// tokens) is planned when that token is known; so it sits out every other plan.
//
// A request with prompt logprobs computes every row of its prompt once: what the prefix cache has
// is used only for rows whose scores are there (after a preemption). Scores that came in survive
// one.
//
// No request starves: requests are served in the order of their Precedence, which never changes;
// only the last in that order is preempted, only the first of those that wait is admitted, and any
// request alone fits into the KV blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "engine/engine_stats.h"
#include "engine/plan_builder.h"
#include "engine/sequence.h"
#include "engine/step_plan.h"
#include "engine/step_runner.h"
#include "kv/block_cache.h"

namespace moebius::engine {

struct SchedulerConfig {
  int64_t vocab_size = 0;
  int64_t num_blocks = 0;  // * block_size >= max_model_len
  int64_t block_size = 16;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 2048;  // >= max_num_seqs
  int num_micro_batches = 1;
  bool enable_prefix_caching = true;
  uint64_t seed = 0;  // of requests that bring none
  std::vector<TokenId> eos_token_ids;
};

// What a step computed, in rows.
struct StepRows {
  int64_t prefill = 0;  // of prompts, or computed anew
  int64_t decode = 0;
  int64_t requests = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);

  // A new, validated request, behind those that came before.
  void Add(RequestId id, RequestInput input, TokenSink sink);

  // Ends a request with a last event; unknown or ended: no effect.
  void Cancel(RequestId id, FinishReason reason);

  // Ends every request; `error` where the reason is kError. Steps in flight are still to be
  // committed or failed.
  void EndAll(FinishReason reason, const Error* error);

  // The next step, or null: nothing can run before a step in flight is committed, or nothing is
  // there. Without prefill no prompts are computed, unless nobody would be held up: no request
  // draws. The plan lives until its Commit, Fail or TakeBack.
  const StepPlan* Plan(bool with_prefill = true);

  // The oldest plan's step is done: tokens go to their sinks, full blocks become shareable.
  StepRows Commit(const StepOutput& output);

  // The oldest plan's step failed: so do all requests that had rows in it. It must be the only one.
  void Fail(const Error& error);

  // The youngest plan will not run: every request is where it was before it, except that a
  // preempted one has still lost its blocks.
  void TakeBack();

  int num_steps_in_flight() const { return num_steps_; }
  int max_steps_in_flight() const { return static_cast<int>(steps_.size()); }
  // Requests that have not ended, or have blocks in a step in flight.
  int64_t num_requests() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }

  // Counters, histograms and gauges; the times of steps are the engine's. A stats that was filled
  // before is filled again without an allocation.
  void ReadStats(EngineStats* stats) const;
  EngineStats Stats() const;

  // Every block's references, and every request's counts, are consistent (aborts if not). Slow.
  void CheckInvariants() const;

 private:
  struct Step {
    StepPlan plan;
    std::vector<PlanItem> items;
    int32_t num_samples = 0;
  };

  // Planning.
  int64_t ShareOf(int64_t count) const;
  bool AnyoneDraws() const;
  void SelectDecodes(Step& step, int64_t* budget);
  void SelectPrefills(Step& step, int64_t* budget);
  void Admit(Step& step, int64_t* budget);
  bool TryAdmit(Sequence& sequence);
  std::vector<BlockId> FindCached(const Sequence& sequence, kv::PrefixCursor* cursor);
  bool MakeRoom(Sequence& sequence, int64_t num_blocks);
  void Preempt(Sequence& sequence);
  void AddItem(Step& step, Sequence& sequence, int64_t num_rows, int64_t num_new_blocks,
               bool is_admission);

  // After a step.
  void CommitItem(const PlanItem& item, const StepOutput& output);
  void AppendToken(Sequence& sequence, const SampledToken& sampled, const StepOutput& output);
  void EndWithoutToken(const PlanItem& item);
  void PublishFullBlocks(Sequence& sequence);
  void LeaveStep(Sequence& sequence);

  // Moves between states.
  void End(Sequence& sequence, FinishReason reason, const Error* error, TokenEvent event);
  void BeginDraining(Sequence& sequence, Sequence::State state);
  void Requeue(Sequence& sequence);
  void ReleaseBlocks(Sequence& sequence);
  void RemoveFromRunning(Sequence& sequence);

  Step& Oldest() { return steps_[static_cast<size_t>(first_step_)]; }
  Step& Youngest() {
    return steps_[static_cast<size_t>((first_step_ + num_steps_ - 1) % max_steps_in_flight())];
  }

  SchedulerConfig config_;
  kv::BlockCache cache_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::map<Precedence, Sequence*> waiting_;
  std::vector<Sequence*> running_;  // by precedence
  int64_t num_arrivals_ = 0;

  std::vector<Step> steps_;
  int first_step_ = 0;
  int num_steps_ = 0;
  int64_t next_step_id_ = 0;

  bool is_short_of_blocks_ = false;      // in the plan being made
  RequestId blocked_;                    // did not fit when last tried ...
  int64_t blocked_margin_ = 0;           // ... with that many blocks to spare
  int64_t num_draining_blocks_ = 0;      // free when the steps in flight are done
  RequestTimes::TimePoint commit_time_;  // of the step being committed
  EngineStats stats_;
};

}  // namespace moebius::engine
