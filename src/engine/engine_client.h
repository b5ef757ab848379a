// The one way to an engine, whether it runs in this process (InprocEngineClient) or others. Any
// thread may call any function; none waits for a step.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/engine_stats.h"
#include "engine/rank_load.h"
#include "engine/request.h"
#include "moe/expert_stats.h"
#include "moe/placement.h"

namespace moebius::engine {

// What requests must respect.
struct EngineLimits {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;  // prompt and output together
  int64_t max_num_seqs = 0;   // more requests than that wait
  // Of those that have not begun, more are refused.
  int64_t max_num_waiting = std::numeric_limits<int64_t>::max();
  std::vector<TokenId> eos_token_ids;  // end a request unless ignore_eos
  int64_t data_parallel_size = 1;      // ranks that a request may ask for
};

class EngineClient {
 public:
  virtual ~EngineClient() = default;

  virtual const EngineLimits& limits() const = 0;

  // Hands the request over; `sink` hears of it on the engine's thread from then on, perhaps before
  // Submit returns. kInvalidArgument: a field of `input`, named (an empty prompt, one that leaves
  // no room below max_model_len, an id outside the vocabulary, sampling). kUnavailable: too many
  // requests wait, or the engine is unhealthy or shutting down; then the sink is never called.
  virtual Result<RequestId> Submit(RequestInput input, TokenSink sink) = 0;

  // Ends the request with `reason` (kStop: a stop string was seen; else kCancelled): its sink gets
  // the last event, without tokens, and no later one. A request that has ended or never was: no
  // effect.
  virtual void Cancel(RequestId request, FinishReason reason = FinishReason::kCancelled) = 0;

  virtual EngineStats Stats() const = 0;
  // Assignments since the start, as of a moment ago.
  virtual moe::ExpertStats ExpertLoad() const = 0;
  // The same of each rank of the deployment: a rank counts what it routes.
  virtual std::vector<moe::ExpertStats> ExpertLoadByRank() const { return {ExpertLoad()}; }

  // What each rank of the deployment has done since the start, in the order of ranks; an engine in
  // this process is one. Empty: this is only a part of one, or it does not say.
  virtual std::vector<RankLoad> RankLoads() const { return {}; }

  // Where experts are now. No slots: one an expert, in order, or they are not spread over ranks.
  virtual moe::PlacementState Placement() const { return {}; }

  // OK, or why the engine takes no more requests.
  virtual Status Health() const = 0;
};

// kInvalidArgument names the field of `input` that the limits forbid.
Status Validate(const RequestInput& input, const EngineLimits& limits);

}  // namespace moebius::engine
