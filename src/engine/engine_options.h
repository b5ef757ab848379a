// What the user decides about an engine. Plain values, any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/trace.h"
#include "engine/step_record.h"

namespace moebius::engine {

struct EngineOptions {
  // KV blocks. Their number is the first of these that is given: num_kv_blocks, kv_cache_bytes,
  // else what memory_fraction (--gpu-memory-utilization) of the available memory holds after
  // weights and workspace, and never more than max_num_seqs sequences of max_model_len can use.
  int64_t block_size = 16;  // tokens
  std::optional<int64_t> num_kv_blocks;
  std::optional<uint64_t> kv_cache_bytes;
  double memory_fraction = 0.9;

  int64_t max_model_len = 0;   // prompt and output of one request; 0: the model's, or what fits
  int64_t max_num_seqs = 256;  // requests running at once
  int64_t max_num_batched_tokens = 2048;  // rows of one step: longer prompts run in chunks
  int64_t max_num_waiting = 4096;         // requests not yet running; more are refused

  bool enable_prefix_caching = true;
  bool async_scheduling = true;  // plan step n + 1 while step n runs
  // Prompts are computed in one of so many steps, the same on all ranks that share steps: the
  // others stay short.
  int64_t prefill_interval = 1;
  // Pipeline stages: so many steps, of disjoint requests, run at once. Not the user's to choose.
  int num_micro_batches = 1;
  // Tokens are counted by expert; else all that is told from those counts is 0.
  bool expert_statistics = true;
  bool device_graphs = true;   // on a GPU: steps that only decode run as graphs
  bool deterministic = false;  // on a GPU: the same bits for any batch and layout, slowly

  std::optional<uint64_t> seed;        // of requests that bring none; none: of the random device
  std::vector<TokenId> eos_token_ids;  // the model's end tokens

  // Where spans of what happens when are written; nowhere: nothing is measured for it.
  TraceTarget trace;

  // Hears of every step that was done; empty: nobody does, and nothing is measured for it.
  StepObserver on_step;

  // A step that takes longer is given up: its requests fail and the engine is unhealthy. Of ranks
  // each wait for another has that bound, or a shorter one that steps have taught
  // (rank/step_bound.h).
  std::chrono::milliseconds step_timeout{std::chrono::minutes(10)};
};

// kInvalidArgument names the flag that sets the field (the field where there is none), its value
// and what is expected.
Status Validate(const EngineOptions& options);

}  // namespace moebius::engine
