// One request inside the scheduler: its tokens, its KV blocks and how far it is. Owned by the
// scheduler, engine thread only.
//
// Three counts order a sequence's life. Tokens [0, num_committed) have their KV in memory; tokens
// [num_committed, num_planned) will have it when the steps in flight are done; tokens
// [tokens.size(), length()) have been planned to be drawn, but are not known yet.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "engine/prompt_scores.h"
#include "engine/request.h"
#include "engine/request_times.h"
#include "engine/token_counts.h"
#include "kv/prefix_index.h"

namespace moebius::engine {

// Who comes first. It never changes, so whoever is oldest stays so and finishes.
struct Precedence {
  int64_t key = 0;  // arrival + priority * kPriorityArrivals
  int64_t arrival = 0;
  auto operator<=>(const Precedence&) const = default;
};

struct Sequence {
  enum class State : uint8_t {
    kWaiting,
    kRunning,
    kDraining,  // preempted, but a step in flight still uses its blocks
    kEnded,     // its last event is out, but a step in flight still uses its blocks
  };

  RequestId id;
  Precedence precedence;
  SamplingParams sampling;
  uint64_t seed = 0;
  std::string salt;
  std::shared_ptr<TokenConstraint> constraint;
  TokenSink sink;
  std::vector<TokenId> end_tokens;     // that stop it
  std::vector<uint32_t> allowed_mask;  // of its allowed_token_ids; empty: all
  // What may be drawn depends on the token drawn last (a constraint, a bad word of several tokens),
  // so a draw is planned only when that token is known.
  bool needs_last_token = false;

  State state = State::kWaiting;
  std::vector<TokenId> tokens;  // prompt, then output
  int64_t num_prompt = 0;
  int64_t max_output = 0;
  std::optional<TokenCounts> token_counts;    // only with penalties
  std::optional<PromptScores> prompt_scores;  // only with prompt logprobs
  RequestTimes times;

  int64_t num_planned = 0;
  int64_t num_committed = 0;
  int32_t num_pending = 0;        // samples planned and not committed
  int32_t pending_row = -1;       // the youngest of them, in its step's samples
  int32_t num_in_flight = 0;      // steps planned and not committed that have rows of it
  int64_t num_draining = 0;       // blocks that become free when those steps are done
  int64_t num_cached_prompt = 0;  // tokens found cached at first admission
  bool was_admitted = false;

  std::vector<BlockId> blocks;
  int64_t num_published = 0;  // of blocks
  kv::PrefixCursor cursor;    // behind the published blocks

  int64_t length() const { return static_cast<int64_t>(tokens.size()) + num_pending; }
  int64_t num_output() const { return static_cast<int64_t>(tokens.size()) - num_prompt; }
  int64_t num_unplanned() const { return length() - num_planned; }
  // Enough tokens have been drawn or are about to be.
  bool is_full() const { return length() - num_prompt >= max_output; }
  Usage usage() const { return {num_prompt, num_cached_prompt, num_output()}; }
};

}  // namespace moebius::engine
